//! Values from `WICKETGATE_*` variables.
//!
//! A name that is no key's is ignored with a warning: an orchestrator may inject
//! `WICKETGATE_PORT=tcp://…` for a service of that name. A key that only a file can say is refused.

use super::document::{Node, Value};
use super::keys::{KEYS, Kind, nearest};
use super::problem::{Origin, Report, seen};

const PREFIX: &str = "WICKETGATE_";

/// The variables of this process that concern the configuration, in the form that
/// [`Config::load`](super::Config::load) takes.
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect()
}

/// Puts the variables' values over what the tree says.
pub(super) fn apply(variables: impl IntoIterator<Item = (String, String)>, root: &mut Node, report: &Report) {
    let mut variables: Vec<_> = variables.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    variables.sort();
    let names: Vec<_> = KEYS.iter().filter_map(|key| Some((key.variable()?, key))).collect();
    for (name, text) in variables {
        let origin = Origin::Environment(name.clone());
        let Some((_, key)) = names.iter().find(|(variable, _)| *variable == name) else {
            let near = nearest(
                &slug(&name),
                names.iter().map(|(v, _)| slug(v)).collect::<Vec<_>>().iter().map(String::as_str),
            )
            .and_then(|near| names.iter().find(|(v, _)| slug(v) == near));
            let hint = near.map(|(v, _)| format!("; did you mean {v}?")).unwrap_or_default();
            report.warn(&origin, None, &format!("no key has this name, so it is ignored{hint}"));
            continue;
        };
        if let Some(list) = list_above(root, key.path) {
            let message = format!(
                "the file has a list at `{list}`, and a variable cannot say which of it is meant; write it in the file"
            );
            report.refuse(&origin, Some(key.path), &message);
            continue;
        }
        match value(key.kind, &text) {
            Ok(value) => root.set(key.path, Node { origin, value }),
            Err(message) => report.refuse(&origin, Some(key.path), &message),
        }
    }
}

/// The key above `path` that may be a table or a list of tables, where it is a list.
fn list_above<'a>(root: &Node, path: &'a str) -> Option<&'a str> {
    let (table, _) = path.rsplit_once('.')?;
    let may_be_list = KEYS.iter().any(|key| key.path == table && key.kind == Kind::TableOrTables);
    let node = table.split('.').try_fold(root, |node, name| node.child(name))?;
    (may_be_list && matches!(node.value, Value::List(_))).then_some(table)
}

fn slug(variable: &str) -> String {
    variable.trim_start_matches(PREFIX).to_lowercase().replace('_', "-")
}

/// A variable's text as the kind of value that its key takes.
pub(super) fn value(kind: Kind, text: &str) -> Result<Value, String> {
    match kind {
        Kind::Integer => text
            .trim()
            .parse()
            .map(Value::Integer)
            .map_err(|_| format!("{} is not a whole number; write digits only", seen(text))),
        Kind::Boolean => match text.trim() {
            "true" => Ok(Value::Boolean(true)),
            "false" => Ok(Value::Boolean(false)),
            _ => Err(format!("{} is neither true nor false; write one of them", seen(text))),
        },
        Kind::List | Kind::Command => {
            Err("it is a list, which a variable cannot hold; write it in the file".to_owned())
        }
        _ => Ok(Value::Text(text.to_owned())),
    }
}
