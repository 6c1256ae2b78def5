//! The helper of a unit of its own, and a main process that is nobody.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use super::scene::{NAME, Scene};
use super::{NGINX, SQUID};
use crate::bed::process::Process;
use crate::bed::wicketgate::PROGRAM;
use crate::bed::{needs, set_mode};

impl Scene {
    /// Has everything for a server done by a helper of its own, which is root's.
    fn start_helper(&mut self) -> Process {
        let by = std::mem::take(&mut self.by);
        let socket = self.bed.path("helper.sock");
        self.table += &format!("\n[helper]\nsocket = {socket:?}\n");
        self.look_for("30s");
        let helper = Process::start("wicketgate helper", self.wicketgate().arg("helper"));
        helper.wait_for_line("listening on");
        self.by = by;
        helper
    }

    /// From now on wicketgate is run by nobody, whose the state is.
    pub(super) fn become_nobody(&mut self) {
        let admin = self.bed.path("admin");
        for folder in [&self.setup.state, &admin] {
            fs::create_dir_all(folder).unwrap();
            chown(folder, Some(65534), Some(65534)).unwrap();
            set_mode(folder, 0o700);
        }
        self.setup.socket = admin.join("admin.sock");
        // Where it was built may be out of nobody's reach.
        self.program = self.bed.path("wicketgate");
        fs::copy(PROGRAM, &self.program).unwrap();
        self.by = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"].to_vec();
    }
}

#[test]
fn nginx_by_a_helper_of_its_own_unit() {
    needs!("root", "mounts", "pebble", "nginx", "openssl");
    let mut scene = Scene::new(&NGINX, "");
    let _helper = scene.start_helper();
    scene.run(&["renew"]).expect_code(1);
    scene.start();
    scene.run(&["deploy"]).expect_code(0);
    scene.run(&["renew", "--force"]).expect_code(0);
    assert_eq!(scene.served(), Some(scene.stored()));
}

#[test]
fn nobody_renews_and_the_helper_reloads() {
    needs!("root", "mounts", "pebble", "nginx", "openssl", "setpriv");
    let mut scene = Scene::new(&NGINX, "");
    scene.become_nobody();

    // Without a helper it may do nothing to a server that is root's, and says so.
    scene.run(&["renew"]).expect_code(1);
    scene.start();
    let told = scene.run(&["deploy"]).expect_code(1).text();
    assert!(told.contains("nginx"), "{told}");

    let _helper = scene.start_helper();
    scene.run(&["deploy"]).expect_code(0);
    scene.run(&["renew", "--force"]).expect_code(0);
    assert_eq!(scene.served(), Some(scene.stored()));
    scene.run(&["verify"]).expect_code(0);
    let key = fs::metadata(scene.setup.live(NAME).join("privkey.pem")).unwrap();
    assert_eq!((key.uid(), key.permissions().mode() & 0o777), (65534, 0o600));

    // Its configuration is broken: root's words come back to nobody.
    scene.change(|text| format!("{text}\nrubbish on;\n"));
    let told = scene.run(&["renew", "--force"]).expect_code(1).text();
    assert!(told.contains("unknown directive \"rubbish\""), "{told}");
}

#[test]
fn nobody_renews_and_the_helper_copies() {
    needs!("root", "mounts", "pebble", "squid", "openssl", "setpriv");
    let mut scene = Scene::new(&SQUID, super::COPIES);
    scene.become_nobody();
    let _helper = scene.start_helper();
    scene.run(&["renew"]).expect_code(1);
    scene.start();
    scene.run(&["deploy"]).expect_code(0);
    scene.run(&["renew", "--force"]).expect_code(0);
    assert_eq!(scene.served(), Some(scene.stored()));
    scene.owns_copies("root:proxy 640");
}
