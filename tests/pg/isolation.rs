//! What the code of a dump can reach from inside a sandbox, and what is left when its worker dies.

use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use pgrestored::sandbox::{Sandbox, find_bindir};
use tokio::time::Instant;

use crate::support::{Cluster, bindir_of};

const OURS: &str = env!("CARGO_BIN_EXE_pgrestored");
const PATIENCE: Duration = Duration::from_secs(30);

/// Something that waits to be touched.
struct Canary {
    touched: Receiver<()>,
    port: u16,
}

fn canary(address: &str) -> Option<Canary> {
    let listener = TcpListener::bind(address).ok()?;
    let (touch, touched) = channel();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            drop(connection);
            if touch.send(()).is_err() {
                return;
            }
        }
    });
    Some(Canary { touched, port })
}

async fn connect(sandbox: &Sandbox) -> tokio_postgres::Client {
    let config = format!("host={} user=postgres dbname=postgres", sandbox.host());
    let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// What a shell command prints inside, run by the server as `COPY … FROM PROGRAM`.
async fn inside(client: &tokio_postgres::Client, command: &str) -> String {
    let command = format!("{{ {command}; }} 2>&1 || echo status $?").replace('\'', "''");
    let sql = format!(
        "CREATE TEMP TABLE IF NOT EXISTS said (line text); TRUNCATE said; COPY said FROM PROGRAM '{command}' WITH (DELIMITER E'\\x01')"
    );
    client.batch_execute(&sql).await.unwrap();
    let rows = client.query("SELECT line FROM said", &[]).await.unwrap();
    rows.iter().map(|r| format!("{}\n", r.get::<_, &str>(0))).collect()
}

fn dir_under_root(name: &str) -> bool {
    Path::new("/").join(name).symlink_metadata().is_ok_and(|m| m.is_dir())
}

async fn nothing_is_reached(bindir: &Path) {
    let parent = tempfile::tempdir().unwrap();
    std::fs::set_permissions(parent.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let other = Cluster::start();
    other.psql("postgres", "CREATE TABLE canary ()");
    let loopback = canary("127.0.0.1:0").unwrap();
    let everywhere = canary("0.0.0.0:0").unwrap();
    let secret = parent.path().join("secret");
    std::fs::write(&secret, "the canary's secret").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();

    let (dir, folder) = (bindir.to_owned(), parent.path().to_owned());
    let sandbox =
        tokio::task::spawn_blocking(move || Sandbox::isolated(&dir, &folder, &[])).await.unwrap().unwrap();
    let i = sandbox.isolation().clone();
    assert!(i.network && i.pids && i.files && i.why_not.is_none(), "{i:?}");
    let client = connect(&sandbox).await;
    // The control: the shell works, and sees its own.
    assert_eq!(inside(&client, "echo here").await, "here\n");

    let dial = |host: &str, port: u16| format!("timeout 3 bash -c \"echo x > /dev/tcp/{host}/{port}\"");
    for (host, port) in [
        ("127.0.0.1", loopback.port),
        ("127.0.0.1", everywhere.port),
        ("169.254.169.254", 80),
        ("10.0.0.1", 80),
    ] {
        let said = inside(&client, &dial(host, port)).await;
        assert!(said.contains("unreachable") || said.contains("status"), "{host}:{port}: {said}");
    }

    let socket = format!("{}/.s.PGSQL.5432", other.sandbox.host());
    assert!(Path::new(&socket).exists(), "the other server is there, outside");
    let said = inside(&client, &format!("ls {socket}")).await;
    assert!(said.contains("No such file"), "{said}");
    for outside in [secret.to_str().unwrap(), "/var/lib/postgresql/15", "/root/.bashrc", "/run/postgresql"] {
        let said = inside(&client, &format!("cat {outside}; ls {outside}")).await;
        assert!(!said.contains("canary") && said.contains("status"), "{outside}: {said}");
    }
    let me = std::process::id();
    let said = inside(&client, &format!("kill -0 {me}; ls -d /proc/{me}")).await;
    assert!(said.contains("status"), "{said}");
    let seen = inside(&client, "ls /proc | grep -c ^[0-9]").await;
    assert!(seen.trim().parse::<u32>().unwrap() < 30, "processes of others: {seen}");
    let who =
        inside(&client, "id -u; grep CapEff /proc/self/status; grep NoNewPrivs /proc/self/status").await;
    assert!(
        !who.starts_with("0\n") && who.contains("0000000000000000") && who.contains("NoNewPrivs:\t1"),
        "{who}"
    );
    // Nothing of the machine but its programs, and no way to another namespace of users.
    let programs =
        ["bin", "dev", "etc", "gnu", "lib", "lib32", "lib64", "libx32", "nix", "proc", "run", "sbin", "usr"];
    let shown = inside(&client, "find / -xdev -mindepth 1 -maxdepth 1 -printf '%f\\n'").await;
    let others = shown.lines().filter(|l| !programs.contains(l) && !l.starts_with("status"));
    for folder in others.filter(|l| dir_under_root(l)) {
        let files = inside(&client, &format!("find /{folder} -type f")).await;
        let own = [sandbox.host(), bindir.parent().unwrap().to_str().unwrap()];
        let strange = files.lines().find(|f| f.starts_with('/') && own.iter().all(|o| !f.starts_with(o)));
        assert_eq!(strange, None, "{folder}");
    }
    let etc = inside(&client, "ls /etc").await;
    let kept = ["group", "ld", "localtime", "nsswitch.conf", "passwd"];
    assert!(etc.lines().all(|l| kept.iter().any(|k| l.starts_with(k))), "{etc}");
    let said = inside(&client, "cat /etc/hostname; cat /etc/machine-id; ls /sys").await;
    assert!(said.contains("No such file") && !said.contains("kernel"), "{said}");
    let said = inside(&client, "unshare --user true && echo made").await;
    assert!(said.contains("status") && !said.contains("made"), "{said}");
    // Without the isolation, the same canaries are touched, for the first time: the test can fail.
    let open = Sandbox::start(bindir, parent.path(), false, "").unwrap();
    for canary in [&loopback, &everywhere] {
        inside(&connect(&open).await, &dial("127.0.0.1", canary.port)).await;
        canary.touched.recv_timeout(PATIENCE).expect("touched from outside");
        assert!(canary.touched.try_recv().is_err(), "touched before");
    }
    // The template is out of reach, so that nothing can be laid into the next sandbox.
    let template = std::fs::read_dir(parent.path())
        .unwrap()
        .flatten()
        .find(|e| e.file_name().to_str().unwrap().contains("template"));
    let template = template.unwrap().path().display().to_string();
    let said = inside(&client, &format!("touch {template}/x")).await;
    assert!(said.contains("status"), "{said}");
    let folder = PathBuf::from(sandbox.host());
    tokio::task::spawn_blocking(move || drop(sandbox)).await.unwrap();
    assert!(!folder.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outside_is_reached_from_inside() {
    nothing_is_reached(&find_bindir(&[]).unwrap()).await;
}

/// Binaries that are not below /usr are seen inside, and nothing else beside them.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_outside_is_reached_from_inside_with_other_binaries() {
    let Some(bindir) = bindir_of(17) else { return };
    nothing_is_reached(&bindir).await;
}

/// Processes of this machine that name the folder.
fn processes(folder: &Path) -> Vec<String> {
    let name = folder.to_str().unwrap();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let mut line = Vec::new();
        let path = entry.path().join("cmdline");
        if std::fs::File::open(path).is_ok_and(|mut f| f.read_to_end(&mut line).is_ok()) {
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(name) && !line.contains("pgrestored verify") {
                found.push(line);
            }
        }
    }
    found
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

/// SIGKILL leaves no process and no folder, whatever the server is doing.
#[test]
fn a_killed_worker_leaves_nothing() {
    let c = Cluster::start();
    c.create("src", "CREATE TABLE t (id int); INSERT INTO t VALUES (1)");
    let dump = c.dump_to_file("src", &[]);
    let scratch = tempfile::tempdir().unwrap();
    let (checks, folder) = (scratch.path().join("checks.yaml"), scratch.path().join("sandboxes"));
    std::fs::write(
        &checks,
        "assertions: [{name: long, sql: SELECT pg_sleep(600)::text, rows: 1, timeout: 10m}]",
    )
    .unwrap();
    let mut worker = Command::new(OURS)
        .args(["verify", dump.to_str().unwrap(), "--evidence-location", "none"])
        .arg("--sandbox-dir")
        .arg(&folder)
        .arg("--verify-checks")
        .arg(&checks)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let sandboxes = || {
        let all = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        all.map(|e| e.path()).filter(|p| p.to_str().unwrap().contains("pgrestored-pg-")).collect::<Vec<_>>()
    };
    until("the sandbox does not start", || {
        let there = sandboxes();
        there.iter().any(|s| processes(s).iter().any(|p| p.contains("postgres -D")))
    });
    worker.kill().unwrap();
    worker.wait().unwrap();
    until("a folder is left", || sandboxes().is_empty());
    until("a process is left", || processes(&folder).is_empty());
}

/// Where even the keeper was killed, the next sandbox removes what it left.
#[test]
fn what_a_killed_keeper_left_is_swept() {
    let parent = tempfile::tempdir().unwrap();
    let bindir = find_bindir(&[]).unwrap();
    let stale = parent.path().join("pgrestored-pg-000000000000");
    std::fs::create_dir_all(stale.join("data")).unwrap();
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    std::fs::File::open(&stale).unwrap().set_modified(long_ago).unwrap();
    let kept = Sandbox::start(&bindir, parent.path(), false, "").unwrap();
    assert!(!stale.exists());
    // One that is kept stays, however old.
    std::fs::File::open(kept.host()).unwrap().set_modified(long_ago).unwrap();
    let other = Sandbox::start(&bindir, parent.path(), false, "").unwrap();
    assert!(Path::new(kept.host()).exists());
    drop((kept, other));
    let left: Vec<_> = std::fs::read_dir(parent.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(left.iter().all(|n| n.to_str().unwrap().contains("template")), "{left:?}");
}

/// Templates and sandboxes are nobody else's.
#[test]
fn the_folder_of_sandboxes_is_ones_own() {
    use std::os::unix::fs::{MetadataExt, chown};
    let (scratch, bindir) = (tempfile::tempdir().unwrap(), find_bindir(&[]).unwrap());
    let fresh = scratch.path().join("fresh");
    drop(Sandbox::isolated(&bindir, &fresh, &[]).unwrap());
    assert_eq!(std::fs::metadata(&fresh).unwrap().mode() & 0o777, 0o700);
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return;
    }
    let other = scratch.path().join("other");
    std::fs::create_dir(&other).unwrap();
    chown(&other, Some(12345), None).unwrap();
    let refused = Sandbox::isolated(&bindir, &other, &[]).err().unwrap().to_string();
    assert!(refused.contains("belongs to somebody else"), "{refused}");
    // A template that somebody has laid there.
    let template = std::fs::read_dir(&fresh).unwrap().flatten().map(|e| e.path()).next().unwrap();
    chown(&template, Some(12345), None).unwrap();
    assert!(Sandbox::isolated(&bindir, &fresh, &[]).err().unwrap().to_string().contains("not ours"));
}
