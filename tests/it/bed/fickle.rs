//! The embedded CA by itself, with faults that a test switches on and off.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;
use wicketgate::rehearsal::{EmbeddedCa, Faults, Seen, Settings};

use super::Bed;

/// Something to be done with the CA where it runs.
type Visit = Box<dyn FnOnce(&EmbeddedCa) + Send>;

/// A CA in a thread of its own. Its keys, accounts and orders end with it.
pub(crate) struct FickleCa {
    pub(crate) directory: String,
    pub(crate) root: PathBuf,
    visits: tokio::sync::mpsc::UnboundedSender<Visit>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FickleCa {
    /// Starts it without faults, for these names, validating at port `gate`.
    pub(crate) fn start(bed: &Bed, gate: u16, names: &[&str]) -> Self {
        Self::start_with(bed, Self::settings(gate, names))
    }

    /// What [`start`](Self::start) starts it with.
    pub(crate) fn settings(gate: u16, names: &[&str]) -> Settings {
        let permitted = names.iter().map(|name| name.parse().expect("an identifier")).collect();
        Settings::new((Ipv4Addr::LOCALHOST, gate).into(), permitted)
    }

    /// Starts it with these settings.
    pub(crate) fn start_with(bed: &Bed, settings: Settings) -> Self {
        let (visits, mut visitors) = tokio::sync::mpsc::unbounded_channel::<Visit>();
        let (stop, mut stopped) = oneshot::channel();
        let (started, ready) = mpsc::channel();
        let serve = async move {
            let ca = EmbeddedCa::start(settings).await.expect("the embedded CA starts");
            started.send((ca.directory_url(), ca.root_pem().to_owned())).expect("the test waits");
            loop {
                tokio::select! {
                    Some(visit) = visitors.recv() => visit(&ca),
                    _ = &mut stopped => return,
                }
            }
        };
        let thread = std::thread::spawn(|| {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(serve);
        });
        let (directory, root) = ready.recv().expect("the embedded CA starts");
        let port = directory.split(['/', ':']).find(|part| part.parse::<u16>().is_ok()).unwrap_or_default();
        let root = bed.write(&format!("fickle-root-{port}.pem"), root);
        Self { directory, root, visits, stop: Some(stop), thread: Some(thread) }
    }

    /// What goes wrong from now on.
    pub(crate) fn set(&self, faults: Faults) {
        self.visit(|ca| ca.set_faults(faults));
    }

    /// What it has counted.
    pub(crate) fn seen(&self) -> Seen {
        self.visit(EmbeddedCa::seen)
    }

    /// Has something done with it, and waits for that.
    pub(crate) fn visit<T: Send + 'static>(
        &self,
        visit: impl FnOnce(&EmbeddedCa) -> T + Send + 'static,
    ) -> T {
        let (done, is_done) = mpsc::channel();
        let visit = move |ca: &EmbeddedCa| done.send(visit(ca)).expect("the test waits");
        self.visits.send(Box::new(visit)).expect("the CA runs");
        is_done.recv().expect("the CA runs")
    }
}

impl Drop for FickleCa {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in there has already failed the test in another way.
            let _ = thread.join();
        }
    }
}
