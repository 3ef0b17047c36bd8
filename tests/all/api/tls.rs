//! TLS: who is let in, what is renewed, and what a connection that does not come to the point costs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use backstitch_api::{Access, Limits, ServerConfig, TlsFiles};
use backstitch_sdk::Client;
use backstitch_tests::server::Server;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An issuer of certificates.
struct Authority {
    certificate: Certificate,
    key: KeyPair,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        Authority { pem: certificate.pem(), certificate, key }
    }

    /// Returns a certificate for this machine, and its key.
    fn sign(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let signed = params.signed_by(&key, &self.certificate, &self.key).unwrap();
        (signed.pem(), key.serialize_pem())
    }

    /// Returns a client that trusts only this issuer, and shows `identity`.
    fn client(&self, identity: Option<&(String, String)>) -> reqwest::Client {
        let issuer = reqwest::Certificate::from_pem(self.pem.as_bytes()).unwrap();
        let builder = reqwest::Client::builder().tls_certs_only([issuer]);
        let builder = match identity {
            Some((certificate, key)) => {
                let pem = format!("{certificate}{key}");
                builder.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap())
            }
            None => builder,
        };
        builder.build().unwrap()
    }
}

/// A folder with the files of a server.
struct Files(PathBuf);

impl Files {
    fn new(name: &str, (certificate, key): &(String, String)) -> Files {
        let folder = std::env::temp_dir().join(format!("backstitch-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let files = Files(folder);
        files.write("cert.pem", certificate);
        files.write("key.pem", key);
        files
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.at(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    async fn serve(&self, client_ca: Option<&Path>, client_optional: bool) -> Server {
        let tls = TlsFiles {
            certificate: self.at("cert.pem"),
            key: self.at("key.pem"),
            client_ca: client_ca.map(Path::to_owned),
            client_optional,
        };
        let limits = Limits { first_request_timeout: Duration::from_secs(2), ..Limits::default() };
        let (access, tls) = (Access::Open, Some(tls));
        Server::with(ServerConfig { access, limits, tls, ..ServerConfig::default() }).await
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

async fn ask(client: &reqwest::Client, server: &Server, path: &str) -> Option<String> {
    let answer = client.get(format!("{}{path}", server.url())).send().await.ok()?;
    assert_eq!(answer.status(), 200);
    Some(answer.text().await.unwrap())
}

/// Sends these bytes. Returns what comes back until the server closes.
async fn raw(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let address = server.url().strip_prefix("https://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A connection that is reset has said all that it says.
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

#[tokio::test]
async fn requests_come_over_tls_and_not_in_plain_text() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let files = Files::new("tls-plain", &ours.sign());
    let server = files.serve(None, false).await;
    let client = ours.client(None);
    assert!(ask(&client, &server, "/v1/whoami").await.is_some());
    assert!(ask(&other.client(None), &server, "/v1/whoami").await.is_none(), "unknown issuer");
    let answer = raw(&server, b"GET /v1/whoami HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    // One that says nothing is closed as well.
    assert_eq!(raw(&server, b"").await, b"");
    let numbers = ask(&client, &server, "/metrics").await.unwrap();
    assert!(!numbers.contains("backstitch_tls_handshakes_failed_total 0\n"), "{numbers}");
    server.stopped().await;
}

#[tokio::test]
async fn certificates_are_renewed_without_dropping_connections_and_bad_files_change_nothing() {
    let (before, after) = (Authority::new("before"), Authority::new("after"));
    let files = Files::new("tls-renewed", &before.sign());
    let server = files.serve(None, false).await;
    let old = before.client(None);
    assert!(ask(&old, &server, "/v1/whoami").await.is_some());
    files.write("cert.pem", "this is no certificate");
    let failures = "backstitch_tls_reload_failures_total 1\n";
    while !ask(&old, &server, "/metrics").await.unwrap().contains(failures) {}
    assert!(ask(&before.client(None), &server, "/v1/whoami").await.is_some(), "as before");
    let (certificate, key) = after.sign();
    files.write("key.pem", &key);
    files.write("cert.pem", &certificate);
    let new = after.client(None);
    while ask(&new, &server, "/v1/whoami").await.is_none() {}
    // Who trusts only the old issuer can make no new connection, but goes on with the one that it has.
    assert!(ask(&before.client(None), &server, "/v1/whoami").await.is_none());
    assert!(ask(&old, &server, "/v1/whoami").await.is_some());
    server.stopped().await;
}

#[tokio::test]
async fn a_client_certificate_is_required_or_only_checked() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let files = Files::new("tls-clients", &servers.sign());
    let client_ca = files.write("clients.pem", &clients.pem);
    let (good, bad) = (clients.sign(), servers.sign());
    for optional in [false, true] {
        let server = files.serve(Some(&client_ca), optional).await;
        let table = [(Some(&good), true), (Some(&bad), false), (None, optional)];
        for (identity, let_in) in table {
            let answer = ask(&servers.client(identity), &server, "/v1/whoami").await;
            assert_eq!(answer.is_some(), let_in, "optional {optional}, {}", identity.is_some());
        }
        server.stopped().await;
    }
}

#[tokio::test]
async fn the_command_line_and_the_sdk_trust_a_file() {
    let (ours, clients) = (Authority::new("ours"), Authority::new("clients"));
    let files = Files::new("tls-trust", &ours.sign());
    let client_ca = files.write("clients.pem", &clients.pem);
    let ca = files.write("ca.pem", &ours.pem);
    let (certificate, key) = clients.sign();
    let own = files.write("own.pem", &format!("{certificate}{key}"));
    let server = files.serve(Some(&client_ca), false).await;
    let client = Client::new(server.url()).unwrap().tries(1);
    assert!(client.incident_counts().await.is_err(), "the issuer is not known to this machine");
    let client = client.trust(ours.pem.as_bytes()).unwrap();
    let client = client.identity(&std::fs::read(&own).unwrap()).unwrap();
    client.incident_counts().await.unwrap();
    assert!(client.trust(b"nothing").is_err());
    let said = |flags: Vec<PathBuf>| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_backstitch-under-test"));
        program.args(["whoami", "--url", server.url()]);
        for (flag, path) in ["--ca-file", "--client-cert"].iter().zip(flags) {
            program.arg(flag).arg(path);
        }
        tokio::task::spawn_blocking(move || program.output().unwrap())
    };
    let good = said(vec![ca.clone(), own.clone()]).await.unwrap();
    assert!(good.status.success(), "{good:?}");
    assert_eq!(said(vec![]).await.unwrap().status.code(), Some(5));
    assert_eq!(said(vec![files.at("key.pem")]).await.unwrap().status.code(), Some(2));
    server.stopped().await;
}
