//! Copies: written whole, with owner and mode; and thirty ways to lead root elsewhere.

use super::*;
use crate::bed::needs;

/// What somebody put there before, where the copy should go, and what the helper has to say.
const PLANTED: &[(&str, &str, &str)] = &[
    // The file itself.
    ("ln -s /mnt/victim key.pem", "key.pem", "a symbolic link is in its place"),
    ("ln -s victim-that-is-not-there key.pem", "key.pem", "a symbolic link is in its place"),
    ("ln -s key.pem key.pem", "key.pem", "a symbolic link is in its place"),
    ("ln -s /etc/shadow key.pem", "key.pem", "a symbolic link is in its place"),
    ("ln -s /proc/self/fd/1 key.pem", "key.pem", "a symbolic link is in its place"),
    ("ln /mnt/victim key.pem", "key.pem", "2 names (hard links)"),
    ("echo x >key.pem; ln key.pem other; ln key.pem third", "key.pem", "3 names (hard links)"),
    ("mkfifo key.pem", "key.pem", "a named pipe is in its place"),
    ("mkfifo key.pem; chown nobody key.pem", "key.pem", "a named pipe is in its place"),
    ("mkdir key.pem", "key.pem", "a folder is in its place"),
    ("mknod key.pem c 1 3", "key.pem", "a device is in its place"),
    ("mknod key.pem b 7 0", "key.pem", "a device is in its place"),
    (
        "/usr/bin/python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"key.pem\")'",
        "key.pem",
        "a socket is in its place",
    ),
    ("echo x >key.pem; chown nobody key.pem", "key.pem", "belongs to nobody, who may not want it replaced"),
    ("echo x >key.pem; chown 4321 key.pem", "key.pem", "belongs to uid 4321"),
    // The folder.
    ("mkdir d; chown nobody d", "d/key.pem", "d belongs to nobody, who could put something else"),
    ("mkdir d; chown 4321:0 d", "d/key.pem", "d belongs to uid 4321"),
    ("mkdir d; chmod 775 d", "d/key.pem", "has mode 0775, so that its group could"),
    ("mkdir d; chgrp nogroup d; chmod 2775 d", "d/key.pem", "has mode 2775, so that its group could"),
    ("mkdir d; chmod 777 d", "d/key.pem", "has mode 0777, so that anybody could"),
    ("mkdir d; chmod 1777 d", "d/key.pem", "has mode 1777, so that anybody may write"),
    ("mkdir d; chmod 703 d", "d/key.pem", "has mode 0703, so that anybody could"),
    ("mkdir real; ln -s real d", "d/key.pem", "d is a symbolic link, where a folder must be"),
    ("ln -s /etc d", "d/key.pem", "d is a symbolic link, where a folder must be"),
    ("ln -s d d", "d/key.pem", "d is a symbolic link, where a folder must be"),
    ("echo x >d", "d/key.pem", "d is a file, where a folder must be"),
    ("mkfifo d", "d/key.pem", "d is a named pipe, where a folder must be"),
    ("true", "d/key.pem", "there is no folder"),
    // Folders above it.
    ("mkdir -p up/d; chown nobody up", "up/d/key.pem", "up belongs to nobody"),
    ("mkdir -p up/d; chmod 1777 up", "up/d/key.pem", "has mode 1777"),
    ("mkdir -p up/d; chmod 770 up", "up/d/key.pem", "has mode 0770"),
    ("mkdir -p real/d; ln -s real up", "up/d/key.pem", "up is a symbolic link"),
    ("mkdir -p real/d; ln -s /mnt/nowhere up", "up/d/key.pem", "up is a symbolic link"),
    // What a draft is called.
    ("mkdir .key.pem.wicketgate", "key.pem", ".key.pem.wicketgate cannot be removed"),
];

#[test]
fn what_is_planted_leads_nowhere() {
    needs!("root", "mounts", "python3");
    let bed = Bed::new();
    let names: Vec<_> = (0..PLANTED.len()).map(|n| format!("s{n}")).collect();
    let tables: String = PLANTED
        .iter()
        .zip(&names)
        .map(|((_, path, _), name)| {
            format!(
                "[deploy.{name}]\nreload = [\"true\"]\nverify = []\n\
                 copy = {{ fullchain = \"/mnt/{name}/chain.pem\", key = \"/mnt/{name}/{path}\" }}\n"
            )
        })
        .collect();
    let deploy: Vec<_> = names.iter().map(String::as_str).collect();
    let rig = Rig::start(&bed, &deploy, &tables);
    let (version, _) = rig.renew(&bed);
    rig.mounts.sh("echo untouched >/mnt/victim").expect_code(0);
    for ((plant, path, said), name) in PLANTED.iter().zip(&names) {
        let folder = format!("/mnt/{name}");
        rig.mounts.sh(&format!("mkdir {folder}; cd {folder}; echo old >chain.pem; {plant}")).expect_code(0);
        let list =
            format!("cd {folder}; ls -lAR --time-style=+; find . -type f -exec cat {{}} +; cat /mnt/victim");
        let before = rig.mounts.sh(&list).expect_code(0).stdout;
        let told = rig.copy(name, version).unwrap_err();
        assert!(told.contains(said), "{plant}: {told}");
        assert!(told.starts_with(&format!("{folder}/{path} is not written: ")), "{plant}: {told}");
        // The other file of the copy is not written either, and no draft stays.
        assert_eq!(rig.mounts.sh(&list).expect_code(0).stdout, before, "{plant}");
    }
    assert!(PLANTED.len() >= 30);
}

#[test]
fn a_draft_that_was_planted_is_replaced_and_not_followed() {
    needs!("root", "mounts");
    let bed = Bed::new();
    let table = "[deploy.x]\nreload = [\"true\"]\nverify = []\ncopy = { key = \"/mnt/key.pem\" }\n";
    let rig = Rig::start(&bed, &["x"], table);
    let (version, _) = rig.renew(&bed);
    for plant in ["ln -s /mnt/victim", "ln /mnt/victim", "mkfifo"] {
        let script = format!("cd /mnt; echo untouched >victim; {plant} .key.pem.wicketgate");
        rig.mounts.sh(&script).expect_code(0);
        rig.copy("x", version).unwrap();
        let seen = rig.mounts.sh("cd /mnt; cat victim; ls -A; head -1 key.pem; rm key.pem").expect_code(0);
        assert_eq!(seen.stdout, "untouched\nkey.pem\nvictim\n-----BEGIN PRIVATE KEY-----\n", "{plant}");
    }
}

#[test]
fn copies_are_whole_with_owner_and_mode_and_left_when_they_are_there() {
    needs!("root", "mounts", "openssl");
    let bed = Bed::new();
    let table = "[deploy.x]\nreload = [\"true\"]\nverify = []\n\
         [deploy.x.copy]\ncert = \"/mnt/{name}/cert.pem\"\nchain = \"/mnt/{name}/chain.pem\"\n\
         fullchain = \"/mnt/{name}/fullchain.pem\"\nkey = \"/mnt/{name}/key.pem\"\n\
         combined = \"/mnt/{name}/combined.pem\"\nowner = \"www-data:proxy\"\nmode = \"0440\"\n";
    let rig = Rig::start(&bed, &["x"], table);
    let (version, _) = rig.renew(&bed);
    let told = rig.copy("x", version).unwrap_err();
    assert!(told.ends_with("create it, as with `install -d -m 0755 /mnt/www.example.test`"), "{told}");
    let folder = format!("/mnt/{NAME}");
    rig.mounts.sh(&format!("mkdir {folder}")).expect_code(0);
    let list = format!("cd {folder}; stat -c '%U:%G %a %n %i %y' * .[!.]*");
    rig.copy("x", version).unwrap();
    let first = rig.mounts.sh(&list).stdout;
    let shown: Vec<_> =
        first.lines().map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" ")).collect();
    let wanted =
        ["cert", "chain", "combined", "fullchain", "key"].map(|n| format!("www-data:proxy 440 {n}.pem"));
    assert_eq!(shown, wanted);
    let stored = rig.config.state_dir.join("live").join(NAME);
    for (copy, file) in [
        ("cert", "cert"),
        ("chain", "chain"),
        ("fullchain", "fullchain"),
        ("key", "privkey"),
        ("combined", "combined"),
    ] {
        let same = format!("cmp {folder}/{copy}.pem {}/{file}.pem", stored.display());
        rig.mounts.sh(&same).expect_code(0);
    }

    rig.copy("x", version).unwrap();
    assert_eq!(rig.mounts.sh(&list).stdout, first, "what was there already was written again");
    rig.mounts.sh(&format!("chmod 444 {folder}/key.pem; chown root {folder}/cert.pem")).expect_code(0);
    rig.copy("x", version).unwrap();
    let mended: Vec<_> = rig.mounts.sh(&list).stdout.lines().map(str::to_owned).collect();
    for (before, after) in first.lines().zip(&mended) {
        let is_touched = before.contains("key.pem") || before.contains(" cert.pem");
        assert_eq!(before != after, is_touched, "{before}, {after}");
        assert!(after.starts_with("www-data:proxy 440 "), "{after}");
    }
    let (second, _) = rig.renew(&bed);
    rig.copy("x", second).unwrap();
    let same = format!("cmp {folder}/combined.pem {}/combined.pem", stored.display());
    rig.mounts.sh(&same).expect_code(0);
    rig.copy("x", version).expect("an older version, when a server is rolled back");
    let told = rig.copy("x", 77).unwrap_err();
    assert_eq!(
        told,
        "version 77 of www.example.test is not passed on: it is not in the state directory, or not whole"
    );
}

#[test]
fn what_was_there_before_a_copy_can_be_put_back() {
    needs!("root", "mounts");
    let bed = Bed::new();
    let table = "[deploy.x]\nreload = [\"true\"]\nverify = []\n\
         copy = { fullchain = \"/run/tls/chain.pem\", key = \"/run/tls/key.pem\" }\n";
    let rig = Rig::start(&bed, &["x"], table);
    let (version, _) = rig.renew(&bed);
    rig.mounts.sh("mkdir /run/tls; cd /run/tls; echo theirs >chain.pem; chmod 604 chain.pem").expect_code(0);
    let list = "cd /run/tls; stat -c '%a %n' $(ls -A); cat chain.pem";
    let before = rig.mounts.sh(list).stdout;
    assert_eq!(rig.put_back("x", version), Ok(false), "nothing is kept yet");
    rig.copy("x", version).unwrap();
    // What a crash has left half-done is done again, and does not take the place of what is kept.
    rig.mounts.sh("echo half >/run/tls/chain.pem").expect_code(0);
    rig.copy_on("x", version).unwrap();
    let files = rig.mounts.sh("ls -A /run/tls").stdout;
    assert_eq!(files, ".chain.pem.before-wicketgate\nchain.pem\nkey.pem\n");
    assert_eq!(rig.put_back("x", version), Ok(true));
    rig.mounts.sh("rm /run/tls/key.pem").expect_code(0);
    assert_eq!(rig.mounts.sh(list).stdout, before, "its mode and all");
    assert_eq!(rig.put_back("x", version), Ok(false));

    // It is always what was there at the beginning of the last deploy, never something older.
    rig.copy("x", version).unwrap();
    let first = rig.mounts.sh("cat /run/tls/chain.pem").stdout;
    let (second, _) = rig.renew(&bed);
    rig.copy("x", second).unwrap();
    assert_ne!(rig.mounts.sh("cat /run/tls/chain.pem").stdout, first);
    assert_eq!(rig.put_back("x", second), Ok(true));
    assert_eq!(rig.mounts.sh("cat /run/tls/chain.pem").stdout, first);
    rig.copy("x", second).unwrap();
    rig.copy("x", second).unwrap();
    assert_eq!(rig.put_back("x", second), Ok(false), "nothing had changed");
}

#[test]
fn a_file_that_cannot_be_replaced_leaves_none_replaced() {
    needs!("root", "mounts");
    let bed = Bed::new();
    let table = "[deploy.x]\nreload = [\"true\"]\nverify = []\n\
         copy = { fullchain = \"/run/tls/chain.pem\", key = \"/run/tls/key.pem\" }\n";
    let rig = Rig::start(&bed, &["x"], table);
    let (version, _) = rig.renew(&bed);
    rig.mounts.sh("mkdir /run/tls").expect_code(0);
    rig.copy("x", version).unwrap();
    // As it is in containers: the file itself is mounted there.
    rig.mounts.sh("mount --bind /run/tls/key.pem /run/tls/key.pem").expect_code(0);
    let before = rig.mounts.sh("cat /run/tls/*.pem").stdout;
    let (second, _) = rig.renew(&bed);
    let told = rig.copy("x", second).unwrap_err();
    assert!(told.contains("/run/tls/key.pem is not written: it cannot be put in place"), "{told}");
    assert_eq!(rig.mounts.sh("cat /run/tls/*.pem").stdout, before);
}

#[test]
fn a_full_disk_leaves_the_old_files() {
    needs!("root", "mounts");
    let bed = Bed::new();
    let table = "[deploy.x]\nreload = [\"true\"]\nverify = []\n\
         copy = { fullchain = \"/run/full/chain.pem\", key = \"/run/full/key.pem\" }\n";
    let rig = Rig::start(&bed, &["x"], table);
    let (version, _) = rig.renew(&bed);
    rig.mounts.sh("mkdir /run/full; mount -t tmpfs -o mode=0755,size=24k tmpfs /run/full").expect_code(0);
    rig.copy("x", version).unwrap();
    let before = rig.mounts.sh("cat /run/full/*.pem").stdout;
    rig.mounts.sh("cd /run/full; dd if=/dev/zero of=ballast bs=4k count=100 2>/dev/null; rm -f none");
    let (second, _) = rig.renew(&bed);
    let told = rig.copy("x", second).unwrap_err();
    assert!(told.contains("free some space there: the old files are untouched"), "{told}");
    assert_eq!(
        rig.mounts.sh("cat /run/full/*.pem; ls -A /run/full").stdout,
        format!("{before}ballast\nchain.pem\nkey.pem\n")
    );
    rig.mounts.sh("rm /run/full/ballast").expect_code(0);
    rig.copy("x", second).unwrap();
    assert_ne!(rig.mounts.sh("cat /run/full/*.pem").stdout, before);
}

#[test]
fn what_is_planted_in_the_state_directory_is_not_copied() {
    needs!("root", "mounts");
    let bed = Bed::new();
    let table = "[deploy.x]\nreload = [\"true\"]\nverify = []\n\
         copy = { fullchain = \"/mnt/chain.pem\", key = \"/mnt/key.pem\" }\n";
    let rig = Rig::start(&bed, &["x"], table);
    let (version, _) = rig.renew(&bed);
    let folder = rig.config.state_dir.join("lineages").join(NAME).join("versions").join("0001");
    let key = folder.join("privkey.pem");
    std::fs::remove_file(&key).unwrap();
    std::os::unix::fs::symlink("/etc/shadow", &key).unwrap();
    let told = rig.copy("x", version).unwrap_err();
    assert!(told.contains("is not passed on: cannot open "), "{told}");
    std::fs::remove_file(&key).unwrap();
    std::fs::write(&key, std::fs::read("/etc/shadow").unwrap()).unwrap();
    let told = rig.copy("x", version).unwrap_err();
    assert!(told.contains("the private key cannot be read") && !told.contains("root"), "{told}");
    assert_eq!(rig.mounts.sh("ls -A /mnt").stdout, "");
}

#[test]
fn a_parent_that_is_swapped_meanwhile_leads_nowhere() {
    needs!("root", "mounts");
    let bed = Bed::new();
    let table = "[deploy.x]\nreload = [\"true\"]\nverify = []\n\
         copy = { fullchain = \"/mnt/up/d/chain.pem\", key = \"/mnt/up/d/key.pem\" }\n";
    let rig = Rig::start(&bed, &["x"], table);
    let mut version = rig.renew(&bed).0;
    rig.mounts.sh("mkdir -p /mnt/up/d /mnt/evil/d; ln -s /mnt/evil /mnt/link").expect_code(0);
    let swap = "import ctypes, os
libc = ctypes.CDLL(None)
print('swapping', flush=True)
while True: libc.renameat2(-100, b'/mnt/up', -100, b'/mnt/link', 2)";
    let swapping = Process::start("the swapper", rig.mounts.command("/usr/bin/python3").args(["-c", swap]));
    swapping.wait_for_line("swapping");
    let (mut copied, mut refused) = (0, 0);
    for n in 0..400 {
        if n % 40 == 0 {
            version = rig.renew(&bed).0;
        }
        match rig.copy("x", version) {
            Ok(()) => copied += 1,
            Err(told) => {
                assert!(told.contains(" is not written: ") && told.contains("/mnt/up "), "{told}");
                refused += 1;
            }
        }
    }
    drop(swapping);
    assert!(copied > 0 && refused > 0, "{copied} copied, {refused} refused");
    assert_eq!(rig.mounts.sh("ls -A /mnt/evil/d").stdout, "");
}
