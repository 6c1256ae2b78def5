//! The embedded CA by itself, with faults that a test switches on and off.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;
use wicketgate::rehearsal::{EmbeddedCa, Faults, Settings};

use super::Bed;

/// A CA in a thread of its own. Its keys, accounts and orders end with it.
pub(crate) struct FickleCa {
    pub(crate) directory: String,
    pub(crate) root: PathBuf,
    change: tokio::sync::mpsc::UnboundedSender<(Faults, mpsc::Sender<()>)>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FickleCa {
    /// Starts it without faults, for these names, validating at port `gate`.
    pub(crate) fn start(bed: &Bed, gate: u16, names: &[&str]) -> Self {
        let permitted = names.iter().map(|name| name.parse().expect("an identifier")).collect();
        let settings = Settings::new((Ipv4Addr::LOCALHOST, gate).into(), permitted);
        let (change, mut changes) = tokio::sync::mpsc::unbounded_channel::<(Faults, mpsc::Sender<()>)>();
        let (stop, mut stopped) = oneshot::channel();
        let (started, ready) = mpsc::channel();
        let serve = async move {
            let ca = EmbeddedCa::start(settings).await.expect("the embedded CA starts");
            started.send((ca.directory_url(), ca.root_pem().to_owned())).expect("the test waits");
            loop {
                tokio::select! {
                    Some((faults, done)) = changes.recv() => {
                        ca.set_faults(faults);
                        done.send(()).expect("the test waits");
                    }
                    _ = &mut stopped => return,
                }
            }
        };
        let thread = std::thread::spawn(|| {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(serve);
        });
        let (directory, root) = ready.recv().expect("the embedded CA starts");
        let root = bed.write("fickle-root.pem", root);
        Self { directory, root, change, stop: Some(stop), thread: Some(thread) }
    }

    /// What goes wrong from now on.
    pub(crate) fn set(&self, faults: Faults) {
        let (done, is_done) = mpsc::channel();
        self.change.send((faults, done)).expect("the CA runs");
        is_done.recv().expect("the CA runs");
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
