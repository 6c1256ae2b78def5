//! The image of `deploy/container`, built by a real builder, and what it is run with: compose.yaml and the Kubernetes
//! manifest. There is no engine here to run it: its root becomes that of a machine of the test's own, read-only, with
//! its user and its environment, and with the arguments that the two files give.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::bed::machine::Machine;
use crate::bed::process::{Process, run, run_within};
use crate::bed::wicketgate::walk;
use crate::bed::{Bed, PATIENCE, needs, set_mode};
use crate::packages::package;

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

/// The documents of a YAML file.
fn yaml(path: &Path) -> Vec<Value> {
    let read = run(Command::new("yq").args(["--slurp", "."]).arg(path)).expect_code(0);
    serde_json::from_str(&read.stdout).unwrap()
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// An image as its builder tells it, and its root as a folder.
struct Image {
    config: Value,
    root: PathBuf,
}

impl Image {
    fn build(bed: &Bed) -> Self {
        let context = bed.path("context");
        fs::create_dir_all(context.join("state")).unwrap();
        fs::copy(package("deb").with_file_name("wicketgate"), context.join("wicketgate")).unwrap();
        let buildah = |arguments: &[&str]| {
            let mut command = Command::new("buildah");
            command.args(["--storage-driver", "vfs", "--root"]).arg(bed.path("layers"));
            command.arg("--runroot").arg(bed.path("building")).args(arguments);
            run_within(Duration::from_secs(120), &mut command).expect_code(0).stdout
        };
        let file = deploy("container/Containerfile");
        buildah(&[
            "build",
            "--isolation",
            "chroot",
            "--tag",
            "tested",
            "--file",
            file.to_str().unwrap(),
            context.to_str().unwrap(),
        ]);
        let told: Value = serde_json::from_str(&buildah(&["inspect", "--type", "image", "tested"])).unwrap();
        let container = buildah(&["from", "tested"]);
        let mounted = buildah(&["mount", container.trim()]);
        let root = bed.path("root");
        run(Command::new("cp").arg("-a").arg(mounted.trim()).arg(&root)).expect_code(0);
        buildah(&["umount", container.trim()]);
        Self { config: told["OCIv1"]["config"].clone(), root }
    }

    /// Runs it as an engine would: a volume that nobody has written to, and nothing else that can be written.
    fn start(&self, bed: &Bed) -> Machine {
        set_mode(bed.dir(), 0o755);
        for folder in ["proc", "dev", "etc"] {
            fs::create_dir_all(self.root.join(folder)).unwrap();
        }
        fs::write(self.root.join("etc/hosts"), "127.0.0.1 localhost example.net\n192.0.2.1 app\n").unwrap();
        Machine::start(
            &self.root,
            "mount -t tmpfs -o mode=0755,uid=65532,gid=65532 tmpfs \"$root/var/lib/wicketgate\"
             mount -o remount,bind,ro \"$root\"",
        )
    }

    /// A command of the image with arguments, environment and user of its own.
    fn command(&self, machine: &Machine, arguments: &[String]) -> Command {
        let entry = texts(&self.config["Entrypoint"]);
        let mut command = machine.command_as(self.config["User"].as_str().unwrap(), &entry[0]);
        for variable in texts(&self.config["Env"]) {
            let (name, value) = variable.split_once('=').unwrap();
            command.env(name, value);
        }
        command.args(&entry[1..]).args(arguments);
        command
    }
}

/// Both ways to run it, with their own arguments and this program's CA: a certificate, its page, an end.
#[test]
fn the_image_runs_as_it_is_said_to() {
    needs!("root", "packages", "buildah", "ip", "nsenter", "curl", "yq");
    let bed = Bed::new();
    let image = Image::build(&bed);
    let files: Vec<_> = walk(&image.root).into_iter().filter(|path| path.is_file()).collect();
    assert_eq!(files, [image.root.join("wicketgate")], "there is more in it than the program");
    let volume = fs::metadata(image.root.join("var/lib/wicketgate")).unwrap();
    assert_eq!((volume.uid(), volume.gid()), (65532, 65532));

    let manifest = yaml(&deploy("kubernetes/wicketgate.yaml"));
    let pod = &manifest.iter().find(|document| document["kind"] == "Deployment").unwrap()["spec"]["template"]
        ["spec"];
    let sidecar = &pod["containers"][0];
    let compose = &yaml(&deploy("container/compose.yaml"))[0]["services"]["wicketgate"];
    for (how, arguments, environment) in
        [("compose", &compose["command"], &Value::Null), ("Kubernetes", &sidecar["args"], &sidecar["env"])]
    {
        let machine = image.start(&bed);
        let given = texts(arguments).into_iter().map(|argument| match argument.split_once("=${") {
            Some((flag, "DOMAIN:?the name that the certificate is for}")) => format!("{flag}=example.net"),
            Some((flag, "CONTACT:?an address that the CA may write to}")) => {
                format!("{flag}=ops@example.net")
            }
            Some(_) => panic!("{argument}: nobody has put anything there"),
            None => argument,
        });
        let mut command = image.command(&machine, &given.collect::<Vec<_>>());
        for variable in environment.as_array().into_iter().flatten() {
            command.env(variable["name"].as_str().unwrap(), variable["value"].as_str().unwrap());
        }
        let mut daemon = Process::start(how, command.env("WICKETGATE_ACME__ISSUER", "embedded"));
        daemon.wait_for_line("obtained");
        let ask = |url: &str| {
            let mut curl = machine.outside("curl");
            let shown = run(curl.args([
                "-skS",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "--connect-to",
                "::127.0.0.1:",
                url,
            ]));
            shown.expect_code(0).stdout
        };
        assert_eq!(ask("http://example.net/"), "308", "{how}");
        // The application is nowhere.
        assert_eq!(ask("https://example.net/"), "502", "{how}");
        let health = match how {
            "compose" => texts(&compose["healthcheck"]["test"]),
            _ => {
                for probe in ["readinessProbe", "livenessProbe"] {
                    let path = sidecar[probe]["httpGet"]["path"].as_str().unwrap();
                    assert_eq!(ask(&format!("http://example.net:9180{path}")), "200", "{probe}");
                }
                vec!["CMD".to_owned(), "/wicketgate".to_owned(), "status".to_owned()]
            }
        };
        assert_eq!(health[..2], ["CMD", "/wicketgate"]);
        let told = run(&mut image.command(&machine, &health[2..])).expect_code(0).stdout;
        assert!(told.contains("example.net"), "{told}");
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.wait(PATIENCE).code(), Some(0), "{how}");
    }
}

/// A volume as Kubernetes hands it over: root's, and writable by the pod's group.
#[test]
fn it_keeps_its_state_in_a_volume_of_its_group() {
    needs!("root", "packages", "ip", "nsenter");
    let bed = Bed::new();
    let root = bed.path("root");
    fs::create_dir_all(root.join("var/lib/wicketgate")).unwrap();
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::copy(package("deb").with_file_name("wicketgate"), root.join("wicketgate")).unwrap();
    fs::write(root.join("etc/hosts"), "127.0.0.1 example.net\n").unwrap();
    chown(root.join("var/lib/wicketgate"), Some(0), Some(65532)).unwrap();
    set_mode(&root.join("var/lib/wicketgate"), 0o2775);
    set_mode(bed.dir(), 0o755);
    let machine = Machine::start(&root, "");
    let start = || {
        let mut command = machine.command_as("65532:65532", "/wicketgate");
        command
            .env("WICKETGATE_STATE_DIR", "/var/lib/wicketgate/state")
            .env("WICKETGATE_ADMIN__SOCKET", "/var/lib/wicketgate/admin.sock");
        Process::start(
            "wicketgate run",
            command.args(["run", "--hostname", "example.net", "--issuer", "embedded"]),
        )
    };
    let stop = |mut daemon: Process| {
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.wait(PATIENCE).code(), Some(0));
    };
    let daemon = start();
    daemon.wait_for_line("obtained");
    stop(daemon);
    let state = root.join("var/lib/wicketgate/state");
    let key = state.join("live/example.net/privkey.pem");
    // What `fsGroup` does at the next mount.
    run(Command::new("chmod").args(["-R", "g+rwXs"]).arg(&state)).expect_code(0);
    let daemon = start();
    daemon.wait_for_line("1 of 1 certificates are here");
    stop(daemon);
    for path in [&state, &key] {
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o022, 0, "{}", path.display());
    }
}

/// What an engine or a cluster is asked for: no right, nothing to write to but the volume, one that orders.
#[test]
fn they_ask_for_no_more_than_is_needed() {
    needs!("yq");
    let compose = yaml(&deploy("container/compose.yaml")).remove(0);
    let service = &compose["services"]["wicketgate"];
    assert_eq!((&service["read_only"], &service["cap_drop"]), (&true.into(), &serde_json::json!(["ALL"])));
    assert_eq!(service["user"], "65532:65532");
    assert_eq!(service["sysctls"]["net.ipv4.ip_unprivileged_port_start"], 0);
    assert_eq!(texts(&service["volumes"]), ["wicketgate:/var/lib/wicketgate"]);
    assert!(compose["volumes"].as_object().unwrap().contains_key("wicketgate"));

    let manifest = yaml(&deploy("kubernetes/wicketgate.yaml"));
    let kinds: Vec<_> = manifest.iter().map(|document| document["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["PersistentVolumeClaim", "Deployment", "Service"]);
    let [claim, deployment, passage] = &manifest[..] else { panic!("{kinds:?}") };
    assert_eq!(
        (&deployment["spec"]["replicas"], &deployment["spec"]["strategy"]["type"]),
        (&1.into(), &"Recreate".into())
    );
    let pod = &deployment["spec"]["template"];
    assert_eq!(pod["metadata"]["labels"], deployment["spec"]["selector"]["matchLabels"]);
    assert_eq!(pod["metadata"]["labels"], passage["spec"]["selector"]);
    let pod = &pod["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    let sidecar = &pod["containers"][0];
    assert_eq!(
        sidecar["securityContext"],
        serde_json::json!({
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
        })
    );
    assert_eq!(pod["volumes"][0]["persistentVolumeClaim"]["claimName"], claim["metadata"]["name"]);
    assert_eq!(sidecar["volumeMounts"][0]["name"], pod["volumes"][0]["name"]);
    let ports: Vec<_> = sidecar["ports"].as_array().unwrap().iter().map(|port| &port["name"]).collect();
    for port in passage["spec"]["ports"].as_array().unwrap() {
        assert!(ports.contains(&&port["targetPort"]), "{port}");
    }
    for image in [&service["image"], &sidecar["image"]] {
        assert_eq!(image.as_str(), Some(concat!("wicketgate:", env!("CARGO_PKG_VERSION"))));
    }
}
