//! Files and TCP ports, by Landlock: what is not named cannot be reached.

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, NetPort,
    PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope,
};

use super::plan::Plan;
use super::{Part, State};

/// The newest that is asked for; what the kernel does not have of it is left out.
const WANTED: ABI = ABI::V6;

/// Rules that are ready to be enforced.
pub(super) struct Restrictions(Result<RulesetCreated, RulesetError>);

impl Restrictions {
    /// Opens what the plan names, as far as it is there.
    pub(super) fn prepare(plan: &Plan) -> Self {
        Self(rules(plan))
    }

    /// Has them hold for this thread and all that come from it.
    pub(super) fn enforce(self) -> Vec<Part> {
        let both = |state, note: &str| ["files", "ports"].map(|part| Part::new(part, state, note)).to_vec();
        let status = match self.0.and_then(RulesetCreated::restrict_self) {
            Ok(status) => status,
            Err(error) => return both(State::Off, &format!("Landlock fails: {error}")),
        };
        let version = match status.landlock {
            LandlockStatus::Available { effective_abi, .. } => effective_abi as i32,
            LandlockStatus::NotEnabled => {
                return both(
                    State::Off,
                    "this kernel has Landlock and does not use it: add `landlock` to its `lsm=` parameter",
                );
            }
            _ => return both(State::Off, "this kernel has no Landlock (Linux 5.13 has)"),
        };
        if status.ruleset == RulesetStatus::NotEnforced {
            return both(State::Off, "this kernel enforces nothing of it");
        }
        let files = match version {
            ..3 => Part::new(
                "files",
                State::Partly,
                "this kernel does not keep files from being cut (Linux 6.2 does)",
            ),
            _ => Part::new(
                "files",
                State::On,
                "the state directory, and for reading the configuration and what resolves names",
            ),
        };
        let ports = match version {
            ..4 => Part::new("ports", State::Off, "this kernel cannot limit TCP ports (Linux 6.7 can)"),
            4 | 5 => Part::new(
                "ports",
                State::Partly,
                "TCP ports of the configuration alone; this kernel does not keep signals within the process (Linux 6.12 does)",
            ),
            _ => Part::new("ports", State::On, "TCP ports of the configuration alone"),
        };
        vec![files, ports]
    }
}

fn rules(plan: &Plan) -> Result<RulesetCreated, RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WANTED))?
        .handle_access(AccessNet::from_all(WANTED))?
        .scope(Scope::Signal)?
        .create()?;
    // Whatever is in those folders is not run.
    let read = AccessFs::from_read(WANTED) & !BitFlags::from(AccessFs::Execute);
    let write = AccessFs::from_all(WANTED) & !BitFlags::from(AccessFs::Execute);
    let remove = BitFlags::from(AccessFs::RemoveFile);
    let append = AccessFs::WriteFile | AccessFs::MakeReg;
    let all = [(&plan.read, read), (&plan.write, write), (&plan.append, append), (&plan.remove, remove)];
    for (path, access) in all.into_iter().flat_map(|(paths, access)| paths.iter().map(move |p| (p, access))) {
        // What is not there needs no rule.
        let Ok(opened) = PathFd::new(path) else { continue };
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(WANTED) };
        rules = rules.add_rule(PathBeneath::new(opened, access))?;
    }
    for port in &plan.bind {
        rules = rules.add_rule(NetPort::new(*port, AccessNet::BindTcp))?;
    }
    for port in &plan.connect {
        rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    Ok(rules)
}
