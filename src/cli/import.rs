//! `import certbot`: take over what certbot has, tell what has no place here, and what to do next.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::{Arguments, FAILED, Failure, config_environment, output};
use crate::clock;
use crate::config::{Config, DEFAULT_FILE, Flags};
use crate::folder::read_file;
use crate::import::certbot::{Kept, LineagePlan, Place, Plan, Tree, keep_account, keep_lineage};
use crate::store::{Store, StoreError};
use crate::words::printable;

/// Largest file that what is written is compared with, bytes.
const MAX_FILE: u64 = 16 << 20;

#[derive(Subcommand, Debug)]
pub(super) enum ImportCommand {
    /// From certbot's folder, which is only read: accounts with their keys (nothing is registered anew),
    /// certificates, settings. What is here already stays; a second time is harmless
    Certbot(CertbotArguments),
}

#[derive(Args, Debug)]
pub(super) struct CertbotArguments {
    /// certbot's folder
    #[arg(default_value = "/etc/letsencrypt")]
    folder: PathBuf,
    /// Where the configuration goes [default: the file of --config, or beside it where that exists]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Show everything, the configuration too, and write nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(arguments: &Arguments, command: &ImportCommand) -> Result<u8, Failure> {
    let ImportCommand::Certbot(certbot) = command;
    let usual = arguments.config.clone().unwrap_or_else(|| DEFAULT_FILE.into());
    let present = match Config::file(arguments.config.clone()) {
        Some(file) if file.try_exists().unwrap_or(true) => {
            Config::load(Some(&file), config_environment(), &arguments.flags)?
        }
        // What the flags and the environment say.
        _ => Config::parse("", &usual, config_environment(), &arguments.flags)?,
    };
    let tree = Tree::read(&certbot.folder).map_err(|e| Failure::new(FAILED, e))?;
    let plan = Plan::new(&tree, clock::now());
    let mut report = Report { text: String::new(), failed: plan.has_troubles() };
    keep(&plan, &present.state_dir, certbot.dry_run, &mut report)?;
    let place = Place { state_dir: present.state_dir, roots: present.acme.roots };
    let text = plan.configuration(&place);
    let wanted = certbot.output.clone().unwrap_or(usual);
    let written = (!plan.lineages.is_empty()).then(|| match certbot.dry_run {
        true => Written::Shown(wanted.clone()),
        false => write(&wanted, &text, certbot.output.is_some()),
    });
    if let Some(written) = &written {
        report.configuration(written, &text);
        report.next_steps(&plan, &place, written, &wanted);
    }
    output::say(&report.text);
    if let Some(Written::Shown(_) | Written::Printed { .. }) = &written {
        output::say(&format!("\n{text}"));
    }
    Ok(if report.failed { FAILED } else { 0 })
}

/// Stores accounts and files under the lock, and tells what became of each.
fn keep(plan: &Plan, state_dir: &Path, dry_run: bool, report: &mut Report) -> Result<(), Failure> {
    let store = match dry_run {
        false => Some(Store::open(state_dir)?),
        true if state_dir.exists() => Some(Store::open_existing(state_dir)?),
        true => None,
    };
    let _lock = match &store {
        Some(store) if !dry_run => Some(store.lock()?),
        _ => None,
    };
    let (store, write) = (store.as_ref(), !dry_run);
    let version = plan.version.as_ref().map_or_else(String::new, |version| format!(" (certbot {version})"));
    let line = format!(
        "{}{version} is only read; the state directory is {}",
        plan.folder.display(),
        state_dir.display()
    );
    report.line(&line);
    report.title("Accounts");
    for account in &plan.accounts {
        let kept = keep_account(store, account, write);
        let kind = &account.kind;
        report.kept(&account.issuer.name(), &format!("{} ({kind} key)", account.url), kept);
    }
    report.line(match plan.accounts.is_empty() {
        true => "  none that can be used: a new one is made at the first order",
        false => "  nothing has changed at the CA: certbot can go on using the same ones",
    });
    report.title("Certificates");
    for lineage in &plan.lineages {
        let kept = keep_lineage(store, lineage, write);
        report.kept(&printable(&lineage.original, 200), &facts(lineage), kept);
        for trouble in &lineage.troubles {
            report.item(&format!("FAILED: {trouble}"));
        }
        if let Some(reason) = &lineage.left_out {
            report.item(&format!("only a comment in the configuration: {reason}"));
        }
        for note in &lineage.notes {
            report.item(note);
        }
    }
    if plan.lineages.is_empty() {
        report.line("  none");
    }
    if !plan.left_behind.is_empty() || !plan.troubles.is_empty() {
        report.title("Not carried over");
        for trouble in &plan.troubles {
            report.item(&format!("FAILED: {trouble}"));
        }
        for sentence in &plan.left_behind {
            report.item(sentence);
        }
    }
    Ok(())
}

fn facts(lineage: &LineagePlan) -> String {
    let mut names: Vec<_> = lineage.identifiers.iter().map(ToString::to_string).collect();
    if names.len() > 4 {
        names.splice(3.., [format!("and {} more", lineage.identifiers.len() - 3)]);
    }
    let mut facts = vec![names.join(", "), lineage.key_type.to_string()];
    if let Some(certificate) = &lineage.certificate {
        let until = Timestamp::try_from(certificate.not_after()).unwrap_or(Timestamp::MAX);
        facts.push(format!("valid until {}", until.strftime("%Y-%m-%d")));
    }
    facts.retain(|fact| !fact.is_empty());
    facts.join("; ")
}

/// Where the configuration is.
enum Written {
    /// Written now.
    New(PathBuf),
    /// It is there, word for word.
    Same(PathBuf),
    /// It would go there.
    Shown(PathBuf),
    /// It is not written: to standard output with it.
    Printed { reason: String, failed: bool },
}

impl Written {
    fn path(&self) -> Option<&Path> {
        match self {
            Self::New(path) | Self::Same(path) | Self::Shown(path) => Some(path),
            Self::Printed { .. } => None,
        }
    }
}

/// Writes a new file, and never over another one: where there is one, the text goes beside it, unless the
/// path was asked for.
fn write(wanted: &Path, text: &str, is_asked_for: bool) -> Written {
    let beside = wanted.with_extension("imported.toml");
    let candidates = if is_asked_for { vec![wanted] } else { vec![wanted, &beside] };
    let mut taken = Vec::new();
    for path in candidates {
        match read_file(path, MAX_FILE) {
            Ok(present) if present == text.as_bytes() => return Written::Same(path.to_owned()),
            Ok(_) => taken.push(path.display().to_string()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => match create(path, text) {
                Ok(()) => return Written::New(path.to_owned()),
                Err(e) => {
                    return failed("write", path, &e);
                }
            },
            Err(e) => return failed("read", path, &e),
        }
    }
    let reason = format!("nothing is overwritten, and there is something else in {}", taken.join(" and "));
    Written::Printed { reason, failed: is_asked_for }
}

fn failed(action: &str, path: &Path, error: &io::Error) -> Written {
    Written::Printed { reason: format!("cannot {action} {}: {error}", path.display()), failed: true }
}

fn create(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    // What was taken over may be nobody else's business.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a configuration is worse than none; the first error is the one to tell.
        let _ = fs::remove_file(path);
    }
    written
}

struct Report {
    text: String,
    failed: bool,
}

impl Report {
    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn title(&mut self, title: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.text, "\n{title}\n");
    }

    fn item(&mut self, text: &str) {
        let _ = writeln!(self.text, "    - {}", printable(text, 2_000));
    }

    fn kept(&mut self, name: &str, facts: &str, kept: Result<Kept, StoreError>) {
        match kept {
            Ok(kept) => self.line(&format!("  {name}: {kept}; {facts}")),
            Err(e) => {
                self.failed = true;
                self.line(&format!("  {name}: FAILED: {e}; {facts}"));
            }
        }
    }

    fn configuration(&mut self, written: &Written, text: &str) {
        self.title("Configuration");
        match written {
            Written::New(path) => self.line(&format!("  written to {}", path.display())),
            Written::Same(path) => self.line(&format!("  in {} already, word for word", path.display())),
            Written::Shown(path) => {
                self.line(&format!("  it would go to {}, and is shown below", path.display()));
            }
            Written::Printed { reason, failed } => {
                self.failed |= failed;
                let mark = if *failed { "FAILED: " } else { "" };
                self.line(&format!("  {mark}{reason}; it is shown below"));
            }
        }
        let shown = written.path().unwrap_or(Path::new("the configuration"));
        match Config::parse(text, shown, [], &Flags::default()) {
            Ok(config) => {
                for warning in config.warnings {
                    self.item(&warning);
                }
            }
            Err(e) => self.item(&format!("it waits for your hand: {e}")),
        }
    }

    fn next_steps(&mut self, plan: &Plan, place: &Place, written: &Written, wanted: &Path) {
        if plan.active().next().is_none() {
            return;
        }
        let named = match wanted {
            path if path == Path::new(DEFAULT_FILE) => String::new(),
            path => format!(" --config {}", path.display()),
        };
        self.title("What comes next");
        let (folder, live) = (plan.folder.display(), place.state_dir.join("live"));
        let read = match written.path() {
            Some(path) if path != wanted => {
                format!("{} is as it was: put what you want of {} into it", wanted.display(), path.display())
            }
            Some(_) => "read the configuration".to_owned(),
            None => format!("put what you want of the configuration into {}", wanted.display()),
        };
        let mut steps = vec![format!(
            "{read}, then `wicketgate{named} check`: port 80 is the gate's, so a server that holds it gives it up, or passes challenges on"
        )];
        steps.push(format!(
            "`wicketgate{named} renew`: what is missing is obtained, what is not due stays as it is (`rehearse --staging` tries the whole way at no cost)"
        ));
        steps.push(format!(
            "have the servers read {}/NAME/ in the place of {folder}/live/NAME/, where the files have the same names, and name them at their certificates, as in `deploy = [\"nginx\"]`: each renewal reloads them then and looks at what they serve, and `wicketgate{named} deploy` does so at once",
            live.display()
        ));
        steps.push(format!("start `wicketgate{named} run`, or `renew` from a timer of its own"));
        steps.push(stop_certbot(plan));
        steps.push(format!("keep {folder} until the first renewal has come: nothing in it was changed"));
        for (index, step) in steps.into_iter().enumerate() {
            let _ = writeln!(self.text, "  {}. {step}", index + 1);
        }
    }
}

/// How certbot ends, or goes on with what stays with it.
fn stop_certbot(plan: &Plan) -> String {
    let names = |is_left_out: bool| {
        let names = plan.lineages.iter().filter(|lineage| lineage.left_out.is_some() == is_left_out);
        names.map(|lineage| printable(&lineage.original, 100)).collect::<Vec<_>>().join(", ")
    };
    if plan.lineages.iter().any(|lineage| lineage.left_out.is_some()) {
        return format!(
            "only then take what has moved from certbot: in {}, rename NAME.conf to NAME.conf.moved for {}; its timer stays, for it goes on with {}",
            plan.folder.join("renewal").display(),
            names(false),
            names(true)
        );
    }
    let mut ways: Vec<String> = ["certbot.timer", "certbot-renew.timer", "snap.certbot.renew.timer"]
        .iter()
        .filter(|unit| {
            let folders = ["/etc/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system"];
            folders.iter().any(|folder| Path::new(folder).join(unit).exists())
        })
        .map(|unit| format!("`systemctl disable --now {unit}`"))
        .collect();
    if Path::new("/etc/cron.d/certbot").exists() {
        ways.push("put a `#` before its line in /etc/cron.d/certbot".to_owned());
    }
    if ways.is_empty() {
        ways.push(
            "`systemctl disable --now certbot.timer`, or its line in /etc/cron.d/certbot or a crontab"
                .to_owned(),
        );
    }
    format!("only then end certbot's own renewals: {}", ways.join("; "))
}
