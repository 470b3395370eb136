//! What the code of a dump can reach from inside a sandbox, and what remains when its worker dies.

use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use pgrestored::sandbox::{Sandbox, find_bindir, set_launcher};
use tokio::time::Instant;

use crate::support::{Cluster, bindir_of, share_templates};

const OURS: &str = env!("CARGO_BIN_EXE_pgrestored");
const PATIENCE: Duration = Duration::from_secs(30);

/// A port that reports each connection to it.
struct WatchedPort {
    touched: Receiver<()>,
    port: u16,
}

fn watch_port(address: &str) -> Option<WatchedPort> {
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
    Some(WatchedPort { touched, port })
}

async fn connect(sandbox: &Sandbox) -> tokio_postgres::Client {
    let config = format!("host={} user=postgres dbname=postgres", sandbox.host());
    let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client
}

/// The output of a shell command inside, run by the server as `COPY … FROM PROGRAM`.
async fn inside(client: &tokio_postgres::Client, command: &str) -> String {
    let command = format!("{{ {command}; }} 2>&1 || echo status $?").replace('\'', "''");
    let sql = format!(
        "CREATE TEMP TABLE IF NOT EXISTS said (line text); TRUNCATE said; COPY said FROM PROGRAM '{command}' WITH (DELIMITER E'\\x01')"
    );
    client.batch_execute(&sql).await.unwrap();
    let rows = client.query("SELECT line FROM said", &[]).await.unwrap();
    rows.iter()
        .map(|r| format!("{}\n", r.get::<_, &str>(0)))
        .collect()
}

fn dir_under_root(name: &str) -> bool {
    Path::new("/")
        .join(name)
        .symlink_metadata()
        .is_ok_and(|m| m.is_dir())
}

/// The errno values of system calls with senseless arguments, made by one perl process inside.
async fn errors(client: &tokio_postgres::Client, calls: &[(i64, &str)]) -> Vec<i32> {
    let call = |(number, arguments): &(i64, &str)| {
        format!("print syscall({number}, {arguments}) == -1 ? $!+0 : 0, qq(\\n);")
    };
    let script: String = calls.iter().map(call).collect();
    let said = inside(client, &format!("perl -e '{script}'")).await;
    said.lines()
        .map(|l| l.parse().unwrap_or_else(|_| panic!("{said}")))
        .collect()
}

/// Allowed to everybody outside, rejected by the filter inside; and everything that a server needs still works.
async fn calls_are_refused(client: &tokio_postgres::Client) {
    let status = inside(client, "grep Seccomp: /proc/self/status").await;
    assert_eq!(status, "Seccomp:\t2\n");
    let new_user = format!("{}, 0, 0, 0, 0", libc::CLONE_NEWUSER | libc::SIGCHLD);
    let refused = [
        (libc::SYS_unshare, "-1"),
        (libc::SYS_setns, "-1, 0"),
        (libc::SYS_mount, "0, 0, 0, 0, 0"),
        (467, "-1, 0, 0, 0, 0"),
        (libc::SYS_clone, new_user.as_str()),
        (libc::SYS_ptrace, "-1, 0, 0, 0"),
        (libc::SYS_process_vm_readv, "0, 0, 0, 0, 0, 0"),
        (libc::SYS_bpf, "-1, 0, 0"),
        (libc::SYS_perf_event_open, "0, 0, 0, 0, 0"),
        (libc::SYS_userfaultfd, "-1"),
        (libc::SYS_keyctl, "0, -3, 0"),
        (libc::SYS_add_key, "0, 0, 0, 0, 0"),
        (libc::SYS_io_uring_setup, "0, 0"),
        (libc::SYS_name_to_handle_at, "-1, 0, 0, 0, 0"),
        (libc::SYS_personality, "0x0040000"),
        (libc::SYS_socketpair, "2, 1, 0, 0"),
        (libc::SYS_socket, "2, 1, 0"),
        (libc::SYS_socket, "16, 3, 0"),
        (libc::SYS_socket, "38, 5, 0"),
        (libc::SYS_socket, "40, 1, 0"),
    ];
    assert_eq!(
        errors(client, &refused).await,
        vec![libc::EPERM; refused.len()]
    );
    let allowed = [
        (libc::SYS_clone3, "0, 0", libc::ENOSYS),
        (libc::SYS_socket, "1, 1, 0", 0),
        (libc::SYS_personality, "0xffffffff", 0),
    ];
    let calls = allowed.map(|(number, arguments, _)| (number, arguments));
    let ended = errors(client, &calls).await;
    assert!(
        ended
            .iter()
            .zip(&allowed)
            .all(|(e, a)| *e == a.2 || (a.2 == 0 && *e >= 0)),
        "{ended:?}"
    );
    let parallel =
        "SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
        SET min_parallel_table_scan_size = 0;
        CREATE TABLE rows AS SELECT g FROM generate_series(1, 20000) g; ANALYZE rows";
    client.batch_execute(parallel).await.unwrap();
    let plan = client
        .query(
            "EXPLAIN (ANALYZE, COSTS off) SELECT count(*) FROM rows",
            &[],
        )
        .await
        .unwrap();
    let plan: String = plan.iter().map(|r| r.get::<_, &str>(0)).collect();
    assert!(plan.contains("Workers Launched: 2"), "{plan}");
}

async fn nothing_is_reached(bindir: &Path) {
    let parent = tempfile::tempdir().unwrap();
    std::fs::set_permissions(
        parent.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let other = Cluster::start();
    other.psql("postgres", "CREATE TABLE canary ()");
    let loopback = watch_port("127.0.0.1:0").unwrap();
    let everywhere = watch_port("0.0.0.0:0").unwrap();
    let secret = parent.path().join("secret");
    std::fs::write(&secret, "the canary's secret").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();

    share_templates(parent.path());
    set_launcher(OURS.into());
    let (dir, folder) = (bindir.to_owned(), parent.path().to_owned());
    let sandbox = tokio::task::spawn_blocking(move || Sandbox::isolated(&dir, &folder, &[]))
        .await
        .unwrap()
        .unwrap();
    let i = sandbox.isolation().clone();
    assert!(
        i.network && i.pids && i.files && i.why_not.is_none(),
        "{i:?}"
    );
    assert!(
        i.seccomp && i.user_namespaces_closed && i.visible.contains(&"/usr".into()),
        "{i:?}"
    );
    let client = connect(&sandbox).await;
    // Control: the shell works, and sees its own files.
    assert_eq!(inside(&client, "echo here").await, "here\n");

    let dial =
        |host: &str, port: u16| format!("timeout 3 bash -c \"echo x > /dev/tcp/{host}/{port}\"");
    for (host, port) in [
        ("127.0.0.1", loopback.port),
        ("127.0.0.1", everywhere.port),
        ("169.254.169.254", 80),
        ("10.0.0.1", 80),
    ] {
        let said = inside(&client, &dial(host, port)).await;
        assert!(
            said.contains("unreachable") || said.contains("status"),
            "{host}:{port}: {said}"
        );
    }

    let socket = format!("{}/.s.PGSQL.5432", other.sandbox.host());
    assert!(
        Path::new(&socket).exists(),
        "the other server is there, outside"
    );
    let said = inside(&client, &format!("ls {socket}")).await;
    assert!(said.contains("No such file"), "{said}");
    for outside in [
        secret.to_str().unwrap(),
        "/var/lib/postgresql/15",
        "/root/.bashrc",
        "/run/postgresql",
    ] {
        let said = inside(&client, &format!("cat {outside}; ls {outside}")).await;
        assert!(
            !said.contains("canary") && said.contains("status"),
            "{outside}: {said}"
        );
    }
    let me = std::process::id();
    let said = inside(&client, &format!("kill -0 {me}; ls -d /proc/{me}")).await;
    assert!(said.contains("status"), "{said}");
    let seen = inside(&client, "ls /proc | grep -c ^[0-9]").await;
    assert!(
        seen.trim().parse::<u32>().unwrap() < 30,
        "processes of others: {seen}"
    );
    let who = inside(
        &client,
        "id -u; grep CapEff /proc/self/status; grep NoNewPrivs /proc/self/status",
    )
    .await;
    assert!(
        !who.starts_with("0\n")
            && who.contains("0000000000000000")
            && who.contains("NoNewPrivs:\t1"),
        "{who}"
    );
    // Only the machine's programs are visible, and no other user namespace can be entered.
    let programs = [
        "bin", "dev", "etc", "gnu", "lib", "lib32", "lib64", "libx32", "nix", "proc", "run",
        "sbin", "usr",
    ];
    let shown = inside(
        &client,
        "find / -xdev -mindepth 1 -maxdepth 1 -printf '%f\\n'",
    )
    .await;
    let others = shown
        .lines()
        .filter(|l| !programs.contains(l) && !l.starts_with("status"));
    for folder in others.filter(|l| dir_under_root(l)) {
        let files = inside(&client, &format!("find /{folder} -type f")).await;
        let prefix = bindir
            .canonicalize()
            .unwrap()
            .parent()
            .unwrap()
            .display()
            .to_string();
        let own = [sandbox.host(), prefix.as_str()];
        let strange = files
            .lines()
            .find(|f| f.starts_with('/') && own.iter().all(|o| !f.starts_with(o)));
        assert_eq!(strange, None, "{folder}");
    }
    let etc = inside(&client, "ls /etc").await;
    let kept = [
        "alternatives",
        "group",
        "ld",
        "localtime",
        "nsswitch.conf",
        "passwd",
    ];
    assert!(
        etc.lines().all(|l| kept.iter().any(|k| l.starts_with(k))),
        "{etc}"
    );
    let said = inside(&client, "cat /etc/hostname; cat /etc/machine-id; ls /sys").await;
    assert!(
        said.contains("No such file") && !said.contains("kernel"),
        "{said}"
    );
    let said = inside(&client, "unshare --user true && echo made").await;
    assert!(said.contains("status") && !said.contains("made"), "{said}");
    for program in i
        .visible
        .iter()
        .map(String::as_str)
        .chain(["/bin", sandbox.host()])
    {
        let is_ours = program == sandbox.host();
        let said = inside(&client, &format!("test -w {program} && echo writable")).await;
        assert_eq!(said == "writable\n", is_ours, "{program}: {said}");
    }
    let devices = inside(&client, "ls /dev").await;
    assert_eq!(
        devices,
        "fd\nfull\nnull\nrandom\nshm\nstderr\nstdin\nstdout\nurandom\nzero\n"
    );
    calls_are_refused(&client).await;
    // Without isolation, the same ports are connected to for the first time, so the test can fail.
    let open = Sandbox::start(bindir, parent.path(), false, "").unwrap();
    for watched in [&loopback, &everywhere] {
        inside(&connect(&open).await, &dial("127.0.0.1", watched.port)).await;
        watched
            .touched
            .recv_timeout(PATIENCE)
            .expect("touched from outside");
        assert!(watched.touched.try_recv().is_err(), "touched before");
    }
    // The template is not writable, so nothing can be planted in the next sandbox.
    let mut tried = 0;
    for entry in std::fs::read_dir(parent.path()).unwrap().flatten() {
        if !entry.file_name().to_str().unwrap().contains("template") {
            continue;
        }
        let template = entry.path().canonicalize().unwrap().display().to_string();
        let said = inside(&client, &format!("touch {template}/x")).await;
        assert!(said.contains("status"), "{said}");
        tried += 1;
    }
    assert!(tried > 0, "there is no template");
    let folder = PathBuf::from(sandbox.host());
    tokio::task::spawn_blocking(move || drop(sandbox))
        .await
        .unwrap();
    assert!(!folder.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn sandboxed_code_reaches_nothing_outside() {
    nothing_is_reached(&find_bindir(&[]).unwrap()).await;
}

/// Binaries outside of /usr are visible inside, but nothing next to them is.
#[tokio::test(flavor = "multi_thread")]
async fn sandboxed_code_reaches_nothing_outside_with_other_binaries() {
    let Some(bindir) = bindir_of(18) else { return };
    nothing_is_reached(&bindir).await;
}

/// Processes of this machine that name the directory.
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

/// The program itself starts its sandboxes under the filter, and its evidence says which isolation was in force.
#[test]
fn the_evidence_describes_the_isolation() {
    let c = Cluster::start();
    c.create("src", "CREATE TABLE t (id int); INSERT INTO t VALUES (1)");
    let dump = c.dump_to_file("src", &[]);
    let scratch = tempfile::tempdir().unwrap();
    let shared = c.sandboxes();
    let verify = |mut command: Command, sandboxes: &Path, more: &[&str]| {
        command.args([
            "verify",
            dump.to_str().unwrap(),
            "--evidence-location",
            "none",
            "--sandbox-dir",
        ]);
        let output = command.arg(sandboxes).args(more).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let all_holds = |report: &str| {
        let report: serde_json::Value = serde_json::from_str(report).unwrap();
        let isolation = &report["verification"]["isolation"];
        for holds in [
            "network",
            "pids",
            "files",
            "seccomp",
            "user_namespaces_closed",
        ] {
            assert_eq!(isolation[holds], true, "{holds}: {report}");
        }
    };
    all_holds(&verify(Command::new(OURS), &shared, &["--output", "json"]));
    let text = verify(Command::new(OURS), &shared, &[]);
    assert!(text.contains(", isolated from this machine\n"), "{text}");
    // The same for an unprivileged user, if the machine allows them to create namespaces.
    let nobody = |program: &Path| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(program);
        command
    };
    if nobody("unshare".as_ref())
        .args(["--user", "true"])
        .status()
        .unwrap()
        .success()
    {
        let program = scratch.path().join("pgrestored");
        std::fs::copy(OURS, &program).unwrap();
        for folder in [scratch.path(), dump.parent().unwrap()] {
            std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o777))
                .unwrap();
        }
        // Its own folder, which nobody else may have made.
        let own = scratch.path().join("sandboxes");
        all_holds(&verify(nobody(&program), &own, &["--output", "json"]));
    }
}

/// SIGKILL leaves no process and no directory, whatever the server is doing.
#[test]
fn a_killed_worker_leaves_nothing_behind() {
    let c = Cluster::start();
    c.create("src", "CREATE TABLE t (id int); INSERT INTO t VALUES (1)");
    let dump = c.dump_to_file("src", &[]);
    let scratch = tempfile::tempdir().unwrap();
    let (checks, folder) = (scratch.path().join("checks.yaml"), c.sandboxes());
    std::fs::write(
        &checks,
        "assertions: [{name: long, sql: SELECT pg_sleep(600)::text, rows: 1, timeout: 10m}]",
    )
    .unwrap();
    let mut worker = Command::new(OURS)
        .args([
            "verify",
            dump.to_str().unwrap(),
            "--evidence-location",
            "none",
        ])
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
        all.map(|e| e.path())
            .filter(|p| p.to_str().unwrap().contains("pgrestored-pg-"))
            .collect::<Vec<_>>()
    };
    until("the sandbox does not start", || {
        let there = sandboxes();
        there
            .iter()
            .any(|s| processes(s).iter().any(|p| p.contains("postgres -D")))
    });
    worker.kill().unwrap();
    worker.wait().unwrap();
    until("a directory is left", || sandboxes().is_empty());
    until("a process is left", || processes(&folder).is_empty());
}

/// If even the keeper was killed, the next sandbox removes what it left.
#[test]
fn leftovers_of_a_killed_keeper_are_removed() {
    let parent = tempfile::tempdir().unwrap();
    share_templates(parent.path());
    let bindir = find_bindir(&[]).unwrap();
    let stale = parent.path().join("pgrestored-pg-000000000000");
    std::fs::create_dir_all(stale.join("data")).unwrap();
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    std::fs::File::open(&stale)
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
    let kept = Sandbox::start(&bindir, parent.path(), false, "").unwrap();
    assert!(!stale.exists());
    // A directory that is marked as kept stays, however old it is.
    std::fs::File::open(kept.host())
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
    let other = Sandbox::start(&bindir, parent.path(), false, "").unwrap();
    assert!(Path::new(kept.host()).exists());
    drop((kept, other));
    let left: Vec<_> = std::fs::read_dir(parent.path())
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert!(
        left.iter()
            .all(|n| n.to_str().unwrap().contains("template")),
        "{left:?}"
    );
}

/// Templates and sandboxes belong to the current user only.
#[test]
fn the_sandbox_directory_belongs_to_the_user() {
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
    let refused = Sandbox::isolated(&bindir, &other, &[])
        .err()
        .unwrap()
        .to_string();
    assert!(refused.contains("belongs to another user"), "{refused}");
    // A template that somebody else planted there.
    let template = std::fs::read_dir(&fresh)
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .next()
        .unwrap();
    chown(&template, Some(12345), None).unwrap();
    assert!(
        Sandbox::isolated(&bindir, &fresh, &[])
            .err()
            .unwrap()
            .to_string()
            .contains("belongs to another user")
    );
}
