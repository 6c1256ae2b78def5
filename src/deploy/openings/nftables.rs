//! Elements with a timeout in a set of nftables, as one transaction for nft(8): the kernel takes them out by
//! itself, whatever becomes of us. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

/// Puts the ports in for that long, whether they are in already or not: older kernels cannot change a timeout in
/// place, so an element goes and comes in one step.
pub(super) fn open(set: &[String; 3], ports: &BTreeSet<u16>, lease: Duration) -> Vec<String> {
    let elements = elements(ports, &format!(" timeout {}s", lease.as_secs()));
    transaction(&[add(set, &elements), delete(set, ports), add(set, &elements)])
}

/// Takes the ports out, whether they are in or not.
pub(super) fn close(set: &[String; 3], ports: &BTreeSet<u16>) -> Vec<String> {
    transaction(&[add(set, &elements(ports, " timeout 1s")), delete(set, ports)])
}

/// What to do about nft's answer.
pub(super) fn remedy(set: &[String; 3], told: &str) -> String {
    let shown = set.join(" ");
    // What the program said, without the command, whose words are the same every time.
    let said = told.rsplit_once("saying: ").map_or(told, |(_, said)| said);
    if said.contains("syntax error") {
        format!(
            "{said}: a word of nftables' own language is no name; give table and set others than in `{shown}`"
        )
    } else if said.contains("No such file or directory") {
        format!(
            "{said}: is there a set `{shown}`? deploy/nftables/wicketgate.nft makes one, `nft list sets` shows what there is"
        )
    } else if told.contains("there is no program") {
        format!("{told}: nftables opens `{shown}`")
    } else if said.contains("Operation not permitted") {
        format!(
            "{said}: nftables obeys root alone, or CAP_NET_ADMIN; have wicketgate-helper.service run the helper"
        )
    } else if ["timeout", "datatype", "Invalid argument", "Could not resolve"]
        .iter()
        .any(|word| said.contains(word))
    {
        format!(
            "{said}: the set `{shown}` needs `type inet_service` and `flags timeout`, as in deploy/nftables/wicketgate.nft"
        )
    } else {
        told.to_owned()
    }
}

/// Whether the set is gone, and with it all that was open by it, or its name cannot be one.
pub(super) fn is_gone(told: &str) -> bool {
    told.contains("No such file or directory") || told.contains("syntax error")
}

fn transaction(commands: &[String]) -> Vec<String> {
    vec!["nft".to_owned(), commands.join("; ")]
}

fn add(set: &[String; 3], elements: &str) -> String {
    format!("add element {} {elements}", set.join(" "))
}

fn delete(set: &[String; 3], ports: &BTreeSet<u16>) -> String {
    format!("delete element {} {}", set.join(" "), elements(ports, ""))
}

fn elements(ports: &BTreeSet<u16>, with: &str) -> String {
    let each: Vec<_> = ports.iter().map(|port| format!("{port}{with}")).collect();
    format!("{{ {} }}", each.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> [String; 3] {
        ["inet", "filter", "acme_open"].map(str::to_owned)
    }

    #[test]
    fn transactions() {
        let ports = BTreeSet::from([80, 8080]);
        assert_eq!(
            open(&set(), &ports, Duration::from_secs(60)),
            [
                "nft",
                "add element inet filter acme_open { 80 timeout 60s, 8080 timeout 60s }; delete element inet filter acme_open { 80, 8080 }; add element inet filter acme_open { 80 timeout 60s, 8080 timeout 60s }"
            ]
        );
        assert_eq!(
            close(&set(), &BTreeSet::from([80])),
            [
                "nft",
                "add element inet filter acme_open { 80 timeout 1s }; delete element inet filter acme_open { 80 }"
            ]
        );
    }

    #[test]
    fn remedies() {
        for (told, says) in [
            ("Error: No such file or directory", "is there a set `inet filter acme_open`?"),
            ("there is no program `nft` in /bin", "nftables opens"),
            ("Error: Could not process rule: Operation not permitted", "CAP_NET_ADMIN"),
            ("Error: Could not process rule: Invalid argument", "`flags timeout`"),
            (
                "`nft x timeout` failed, saying: Error: syntax error, unexpected missing",
                "give table and set others",
            ),
            ("`nft x timeout` failed, saying: Error: else", "`nft x timeout` failed, saying: Error: else"),
            ("Error: something else", "Error: something else"),
        ] {
            assert!(remedy(&set(), told).contains(says), "{told}");
        }
        assert!(is_gone("Error: No such file or directory") && !is_gone("Error: Operation not permitted"));
    }
}
