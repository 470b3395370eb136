//! TLS to a server with libpq's modes and certificates of a throwaway authority.

use std::path::{Path, PathBuf};
use std::process::Command;

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use pgrestored::config::{Config, RawConfig};
use pgrestored::postgres::Server;

use crate::support::Cluster;

/// An authority, a server certificate for `name`, and a client certificate for the role `role_tls`.
pub struct Pki {
    folder: PathBuf,
}

fn openssl(folder: &Path, args: &str) {
    let out = Command::new("openssl")
        .args(args.split(' '))
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "openssl {args}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

impl Pki {
    fn new(folder: PathBuf, name: &str) -> Self {
        std::fs::create_dir(&folder).unwrap();
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(
            &folder,
            &format!("req -x509 {key} -keyout ca.key -out ca.crt -days 2 -subj /CN=test-ca"),
        );
        for (who, extension) in [
            ("server", format!("subjectAltName=IP:{name}")),
            ("client", "extendedKeyUsage=clientAuth".into()),
        ] {
            let subject = if who == "server" { name } else { "role_tls" };
            openssl(
                &folder,
                &format!("req {key} -keyout {who}.key -out {who}.csr -subj /CN={subject}"),
            );
            std::fs::write(folder.join("ext"), extension).unwrap();
            openssl(
                &folder,
                &format!(
                    "x509 -req -in {who}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out {who}.crt -days 2 -extfile ext"
                ),
            );
        }
        Pki { folder }
    }

    pub fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

/// A server on a loopback address of its own in the network 127.`net`, whose certificate is valid for that address only.
/// From there it lets in what `rule` allows, a line of pg_hba.conf.
pub fn server(net: u8, rule: &str) -> (Cluster, Pki, String) {
    let id = std::process::id();
    let address = format!("127.{net}.{}.{}", id / 250 % 250, id % 250 + 1);
    let c = Cluster::start_with(&format!("-c listen_addresses={address}"));
    let pki = Pki::new(c.scratch("pki"), &address);
    let data = PathBuf::from(c.psql("postgres", "SHOW data_directory"));
    let owner = std::fs::metadata(&data).unwrap();
    for (from, to) in [
        ("server.crt", "server.crt"),
        ("server.key", "server.key"),
        ("ca.crt", "root.crt"),
    ] {
        let to = data.join(to);
        std::fs::copy(pki.file(from), &to).unwrap();
        std::os::unix::fs::chown(&to, Some(owner.uid()), Some(owner.gid())).unwrap();
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let rules = format!("local all all trust\n{rule}\nhostssl all postgres 127.0.0.0/8 trust\n");
    std::fs::write(data.join("pg_hba.conf"), rules).unwrap();
    c.psql("postgres", "ALTER SYSTEM SET ssl_ca_file = 'root.crt'");
    c.psql("postgres", "ALTER SYSTEM SET ssl = on");
    c.psql("postgres", "SELECT pg_reload_conf()");
    (c, pki, address)
}

async fn reaches(flags: &[(&str, &str)]) -> Result<(), String> {
    let flags = [
        &[("retry-budget", "1s"), ("backup-bucket", "file:///nowhere")],
        flags,
    ]
    .concat();
    let config = Config::new(&RawConfig::from_flags(&flags).unwrap()).map_err(|e| e.to_string())?;
    let server = Server::new(&config.db).map_err(|e| e.to_string())?;
    let session = server
        .maintenance("test")
        .await
        .map_err(|e| format!("{}: {e}", e.reason()))?;
    let tls = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let row = session.client().query_one(tls, &[]).await.unwrap();
    assert!(row.get::<_, bool>(0), "not encrypted");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn libpqs_tls_modes_are_supported() {
    let (c, pki, address) = server(77, "hostssl all role_tls 127.0.0.0/8 cert");
    c.psql("postgres", "CREATE ROLE role_tls LOGIN CREATEDB");
    let (root, certificate, key) = (
        pki.file("ca.crt"),
        pki.file("client.crt"),
        pki.file("client.key"),
    );
    let other = Pki::new(c.scratch("other"), &address);
    let stranger = other.file("ca.crt");
    let as_postgres = |mode: &'static str| {
        [
            ("db-host", address.as_str()),
            ("db-user", "postgres"),
            ("db-sslmode", mode),
        ]
    };
    let with = |mode: &'static str, more: &[(&'static str, &str)]| {
        let all = as_postgres(mode).into_iter().chain(more.iter().copied());
        all.map(|(k, v)| (k, v.to_owned())).collect::<Vec<_>>()
    };
    for (name, flags, is_good) in [
        ("require", with("require", &[]), true),
        (
            "require, and its authority",
            with("require", &[("db-sslrootcert", &root)]),
            true,
        ),
        (
            "require, and another authority",
            with("require", &[("db-sslrootcert", &stranger)]),
            false,
        ),
        ("prefer", with("prefer", &[]), true),
        (
            "its authority",
            with("verify-full", &[("db-sslrootcert", &root)]),
            true,
        ),
        (
            "any name",
            with("verify-ca", &[("db-sslrootcert", &root)]),
            true,
        ),
        ("an unknown authority", with("verify-full", &[]), false),
        (
            "another authority",
            with("verify-full", &[("db-sslrootcert", &stranger)]),
            false,
        ),
        (
            "another authority, any name",
            with("verify-ca", &[("db-sslrootcert", &stranger)]),
            false,
        ),
        ("plain", with("disable", &[]), false),
    ] {
        let flags: Vec<(&str, &str)> = flags.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let reached = reaches(&flags).await;
        assert_eq!(reached.is_ok(), is_good, "{name}: {reached:?}");
        if !is_good {
            assert!(reached.unwrap_err().starts_with("access_denied"), "{name}");
        }
    }
    // By a name that is not in the certificate.
    let elsewhere = "127.78.1.1";
    let proxy = tokio::net::TcpListener::bind((elsewhere, 5432))
        .await
        .unwrap();
    let to = address.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = proxy.accept().await {
            let mut server = tokio::net::TcpStream::connect((to.as_str(), 5432))
                .await
                .unwrap();
            tokio::spawn(
                async move { tokio::io::copy_bidirectional(&mut client, &mut server).await },
            );
        }
    });
    let by = |mode: &'static str| {
        [
            ("db-host", elsewhere),
            ("db-user", "postgres"),
            ("db-sslmode", mode),
            ("db-sslrootcert", root.as_str()),
        ]
    };
    assert!(
        reaches(&by("verify-full"))
            .await
            .unwrap_err()
            .starts_with("access_denied")
    );
    reaches(&by("verify-ca")).await.unwrap();
    // The client logs in with its certificate.
    let as_role = [
        ("db-host", address.as_str()),
        ("db-user", "role_tls"),
        ("db-sslmode", "verify-full"),
        ("db-sslrootcert", root.as_str()),
    ];
    assert!(reaches(&as_role).await.is_err());
    let with_certificate = [
        &as_role[..],
        &[
            ("db-sslcert", certificate.as_str()),
            ("db-sslkey", key.as_str()),
        ],
    ]
    .concat();
    reaches(&with_certificate).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_never_sent_unencrypted_to_another_machine() {
    let ask = |host: &str, mode: &str, password: &str, allow: &str| {
        let flags = [
            ("db-host", host),
            ("db-sslmode", mode),
            ("db-password", password),
            ("db-allow-plaintext", allow),
        ];
        Config::new(&RawConfig::from_flags(&flags).unwrap()).map_err(|e| e.to_string())
    };
    for mode in ["disable", "prefer"] {
        let e = ask("db.internal", mode, "secret-word", "").unwrap_err();
        assert!(
            e.contains("DB_SSLMODE") && !e.contains("secret-word"),
            "{e}"
        );
        assert!(
            ask("db.internal", mode, "", "").is_ok()
                && ask("db.internal", mode, "x", "true").is_ok()
        );
        assert!(
            ask("127.0.0.1", mode, "x", "").is_ok()
                && ask("/var/run/postgresql", mode, "x", "").is_ok()
        );
    }
    assert!(ask("db.internal", "require", "x", "").is_ok());
    assert!(ask("db.internal", "", "x", "").is_ok());
}
