//! The keys of session tickets, read again when their file changes, so that all nodes change them without a restart.
//! Whatever is wrong with the file, the last good keys stay.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use super::watched::{INTERVAL, Mark, Trouble, mark};
use crate::config::Config;
use crate::front::CertificateResolver;
use crate::tickets::TicketKeys;

/// The file, where one is configured.
pub(super) struct TicketFile {
    resolver: CertificateResolver,
    watched: RefCell<Option<Watched>>,
}

struct Watched {
    file: PathBuf,
    mark: Option<Mark>,
    /// The keys that are in use.
    used: Option<Arc<TicketKeys>>,
    trouble: Trouble,
}

impl TicketFile {
    /// Begins with the keys that were read before this process shut itself in.
    pub(super) fn new(config: &Config, resolver: CertificateResolver, keys: Option<TicketKeys>) -> Rc<Self> {
        let this = Rc::new(Self { resolver, watched: RefCell::default() });
        *this.watched.borrow_mut() = configured(config).map(Watched::new);
        if let (Some(watched), Some(keys)) = (&mut *this.watched.borrow_mut(), keys) {
            watched.take(keys, &this.resolver);
        }
        this.look();
        this
    }

    /// Follows a changed configuration; another file's keys are used once they are read.
    pub(super) fn reconfigure(&self, config: &Config) {
        let file = configured(config);
        let mut watched = self.watched.borrow_mut();
        if watched.as_ref().map(|watched| &watched.file) != file.as_ref() {
            if file.is_none() {
                self.resolver.share_tickets(None);
                tracing::info!("session tickets are sealed with keys of this process alone");
            }
            // What was used is used until the new one is read.
            let used = watched.take().and_then(|watched| watched.used);
            *watched = file.map(|file| Watched { used, ..Watched::new(file) });
        }
        drop(watched);
        self.look();
    }

    /// Looks at it again and again.
    pub(super) async fn watch(&self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            self.look();
        }
    }

    fn look(&self) {
        if let Some(watched) = &mut *self.watched.borrow_mut() {
            watched.look(&self.resolver);
        }
    }
}

fn configured(config: &Config) -> Option<PathBuf> {
    config.front.as_ref()?.ticket_key_file.clone()
}

impl Watched {
    fn new(file: PathBuf) -> Self {
        Self { file, mark: None, used: None, trouble: Trouble::default() }
    }

    fn look(&mut self, resolver: &CertificateResolver) {
        // Before it is read: what changes meanwhile is seen at the next look.
        let mark = mark(&self.file).ok();
        if mark.is_some() && self.mark == mark && !self.trouble.is_there() {
            return;
        }
        match TicketKeys::read(&self.file) {
            Ok(keys) => {
                self.mark = mark;
                self.trouble.is_over();
                self.take(keys, resolver);
            }
            Err(e) => {
                let (trouble, is_in_use) = (e.to_string(), self.used.is_some());
                if self.trouble.is_due(&trouble, is_in_use) {
                    let stays = match is_in_use {
                        true => "the keys that were read before are used on",
                        false => "session tickets are sealed with keys of this process alone",
                    };
                    tracing::error!(
                        "the ticket keys of {} cannot be used: {trouble}; {stays}",
                        self.file.display()
                    );
                }
            }
        }
    }

    /// Uses these keys, if they are others than before.
    fn take(&mut self, keys: TicketKeys, resolver: &CertificateResolver) {
        if self.used.as_ref().is_some_and(|used| used.is_same(&keys)) {
            return;
        }
        let keys = Arc::new(keys);
        resolver.share_tickets(Some(keys.clone()));
        let (key, count) = (keys.sealing(), keys.count());
        tracing::info!(key, keys = count, "session tickets are sealed with a key of {}", self.file.display());
        self.used = Some(keys);
    }
}
