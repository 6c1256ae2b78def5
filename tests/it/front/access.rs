//! The access log: what is in it, where it goes when it is moved, and that nobody waits for it.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use http::{Method, Response, StatusCode};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;
use wicketgate::config::{AccessLog, Front, LogFormat, LogPlace, Upstream};

use super::rig::{App, Pieces, Rig, data, get, post, settings, soon, text, until};

fn logging(upstream: Upstream, path: &Path, format: LogFormat) -> Front {
    let place = LogPlace::File(path.to_owned());
    Front { access_log: Some(AccessLog { place, format }), ..settings(upstream) }
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

async fn wait_for_lines(path: &Path, count: usize) -> Vec<String> {
    until("the lines are there", || lines(path).len() >= count).await;
    lines(path)
}

async fn objects(path: &Path, count: usize) -> Vec<Value> {
    let lines = wait_for_lines(path, count).await;
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// How often this process has it open.
fn openings(path: &Path) -> usize {
    let all = fs::read_dir("/proc/self/fd").unwrap();
    all.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok()).filter(|open| open == path).count()
}

#[tokio::test]
async fn what_is_said_of_each_response() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let app = App::http(|request| async move {
        let mut response = Response::new(Pieces::of([data("four"), data("four")]));
        if request.uri().path() == "/missing" {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        response
    })
    .await;
    let mut front = logging(app.upstream.clone(), &path, LogFormat::Json);
    front.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    front.max_body = Some(3);
    let rig = Rig::with(&front, Duration::ZERO);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777 & !0o640, 0);

    let mut h1 = rig.h1().await;
    let mut request = get("/a?b=c");
    let headers = request.headers_mut();
    headers.insert("user-agent", "test \"1\"".parse().unwrap());
    headers.insert("referer", "https://r.test/".parse().unwrap());
    headers.insert("x-forwarded-for", "192.0.2.7".parse().unwrap());
    assert_eq!(text(soon(h1.send_request(request)).await.unwrap()).await, "fourfour");
    let mut request = get("/missing");
    *request.method_mut() = Method::HEAD;
    soon(h1.send_request(request)).await.unwrap();
    let mut h2 = rig.h2().await;
    assert_eq!(text(soon(h2.send_request(get("https://b.test/two"))).await.unwrap()).await, "fourfour");
    let request = post("https://a.test/large", Pieces::of([data("four")]));
    text(soon(h2.send_request(request)).await.unwrap()).await;
    assert!(
        rig.talk("GET / HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n").await.contains("421")
    );

    let mut told = objects(&path, 5).await;
    told.sort_by_key(|line| line["target"].as_str().unwrap().to_owned());
    let expected = [
        ("/", "GET", "HTTP/1.1", "other.test", 421),
        ("/a?b=c", "GET", "HTTP/1.1", "a.test", 200),
        ("/large", "POST", "HTTP/2.0", "a.test", 413),
        ("/missing", "HEAD", "HTTP/1.1", "a.test", 404),
        ("/two", "GET", "HTTP/2.0", "b.test", 200),
    ];
    for (line, (target, method, version, host, status)) in told.iter().zip(expected) {
        let said = |key: &str| line[key].as_str().unwrap();
        assert_eq!(
            (said("target"), said("method"), said("version"), said("host")),
            (target, method, version, host)
        );
        assert_eq!((&line["status"], &line["complete"]), (&status.into(), &true.into()), "{line}");
        assert_eq!(line["tls"], "TLSv1.3");
        assert!(line["duration"].as_f64().unwrap() >= line["upstream-duration"].as_f64().unwrap_or(0.0));
        assert!(line["time"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{line}");
    }
    let (misdirected, first, head, second) = (&told[0], &told[1], &told[3], &told[4]);
    assert!(misdirected["upstream-duration"].is_null() && misdirected["referer"].is_null());
    assert_eq!((&first["user-agent"], &first["referer"]), (&"test \"1\"".into(), &"https://r.test/".into()));
    assert_eq!((&first["client"], &second["client"]), (&"192.0.2.7".into(), &"127.0.0.1".into()));
    assert!(first["upstream-duration"].is_f64());
    assert_eq!((&first["bytes"], &head["bytes"], &second["bytes"]), (&8.into(), &0.into(), &8.into()));
}

/// Cut by the application, by the client, and never begun.
#[tokio::test]
async fn what_did_not_come_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let cut = App::sending("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfour").await;
    let rig = Rig::with(&logging(cut.upstream, &path, LogFormat::Json), Duration::ZERO);
    rig.talk("GET /cut HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let told = objects(&path, 1).await;
    assert_eq!((&told[0]["status"], &told[0]["bytes"]), (&200.into(), &4.into()), "{}", told[0]);
    assert_eq!(told[0]["complete"], false);

    let path = folder.path().join("left.log");
    let silent = App::http(|_| std::future::pending::<Response<Pieces>>()).await;
    let rig = Rig::with(&logging(silent.upstream.clone(), &path, LogFormat::Json), Duration::ZERO);
    let mut h2 = rig.h2().await;
    let asking = tokio::spawn(h2.send_request(get("https://a.test/left")));
    until("the application was asked", || !silent.seen().is_empty()).await;
    asking.abort();
    drop(h2);
    let told = objects(&path, 1).await;
    assert_eq!((&told[0]["status"], &told[0]["complete"]), (&499.into(), &false.into()), "{}", told[0]);
}

#[tokio::test]
async fn a_file_that_was_moved_or_cut_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let app = App::saying("four").await;
    let front = logging(app.upstream, &path, LogFormat::Combined);
    let rig = Rig::with(&front, Duration::ZERO);
    let mut h1 = rig.h1().await;
    let mut ask = async |target: &str| {
        assert_eq!(text(soon(h1.send_request(get(target))).await.unwrap()).await, "four");
    };
    ask("/one").await;
    let told = wait_for_lines(&path, 1).await;
    let stamp = told[0].split(['[', ']']).nth(1).unwrap();
    jiff::fmt::strtime::parse("%d/%b/%Y:%H:%M:%S %z", stamp).unwrap().to_timestamp().unwrap();
    let expected = format!("127.0.0.1 - - [{stamp}] \"GET /one HTTP/1.1\" 200 4 \"-\" \"-\"");
    assert_eq!(told, [expected]);

    // As logrotate does it, with `create` and without.
    fs::rename(&path, &moved).unwrap();
    File::create(&path).unwrap();
    rig.state.reload(&front);
    ask("/two").await;
    assert!(wait_for_lines(&path, 1).await[0].contains("/two"));
    fs::rename(&path, &moved).unwrap();
    until("it is made anew by itself", || path.exists()).await;
    ask("/three").await;
    assert!(wait_for_lines(&path, 1).await[0].contains("/three"));
    fs::remove_file(&path).unwrap();
    File::create(&path).unwrap();
    until("the new one is found", || openings(&path) == 1).await;
    ask("/four").await;
    assert!(wait_for_lines(&path, 1).await[0].contains("/four"));

    // `copytruncate`.
    OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    ask("/five").await;
    let told = wait_for_lines(&path, 1).await;
    assert!(told[0].starts_with("127.0.0.1 ") && told[0].contains("/five"), "{told:?}");
}

#[tokio::test]
async fn the_last_lines_are_written_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let front = logging(App::saying("four").await.upstream, &path, LogFormat::Json);
    let mut rig = Rig::with(&front, Duration::ZERO);
    let mut h1 = rig.h1().await;
    for _ in 0..300 {
        text(soon(h1.send_request(get("/"))).await.unwrap()).await;
    }
    rig.stop();
    until("it has stopped", || rig.has_stopped()).await;
    let log = rig.state.access_log().unwrap();
    log.finish(Duration::from_secs(20));
    assert_eq!((lines(&path).len(), log.lost()), (300, 0));
}

/// A pipe whose reader reads nothing takes 64 KiB, the queue one MiB; all that comes after that is dropped.
#[tokio::test]
async fn a_stuck_pipe_stops_no_request() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let rig =
        Rig::with(&logging(App::saying("four").await.upstream, &path, LogFormat::Combined), Duration::ZERO);
    let log = rig.state.access_log().unwrap();
    let mut h1 = rig.h1().await;
    let mut ask = async || {
        let mut request = get("/");
        request.headers_mut().insert("user-agent", "a".repeat(4000).parse().unwrap());
        assert_eq!(text(soon(h1.send_request(request)).await.unwrap()).await, "four");
    };
    // Without a reader it is not even open.
    ask().await;
    until("a line is lost", || log.lost() > 0).await;
    let mut reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    until("it is open at both ends", || openings(&path) == 2).await;
    let before = log.lost();
    for _ in 0..2000 {
        ask().await;
        if log.lost() > before + 10 {
            break;
        }
    }
    assert!(log.lost() > before + 10);
    // A stop does not wait for it either.
    log.finish(Duration::from_millis(1));
    // What it took are whole lines.
    let mut took = vec![0; 4096];
    reader.read_exact(&mut took).unwrap();
    assert!(took.starts_with(b"127.0.0.1 - - ["), "{}", String::from_utf8_lossy(&took[..100]));
    drop(reader);
}
