//! TLS of the server: certificates are read from files, read again when these change, and used for connections from
//! then on. Connections that are open keep theirs.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// Interval at which the files are read.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The largest file of certificates or keys, in bytes.
const MOST_BYTES: u64 = 1024 * 1024;

/// Files with the certificates of a server.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate of the server and those that lead to its issuer, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// The issuers of clients' certificates, in PEM; clients need none without it.
    pub client_ca: Option<PathBuf>,
    /// A client without a certificate is admitted; one with an invalid certificate is not.
    pub client_optional: bool,
}

/// Content of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Content {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// The certificates of a server.
pub(crate) struct Tls {
    files: TlsFiles,
    now: Mutex<Now>,
    counts: Counts,
}

struct Now {
    acceptor: TlsAcceptor,
    /// The content that was tried last, valid or not.
    tried: Content,
    /// The reason for which the last reload failed; it is reported once.
    told: Option<String>,
}

#[derive(Debug, Default)]
struct Counts {
    reloads: AtomicU64,
    failures: AtomicU64,
    handshakes: AtomicU64,
}

/// Result of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reload {
    /// They are as they were.
    Unchanged,
    /// New connections use the present content.
    Done,
    /// New connections use what was there before.
    Failed,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read, or what they hold does not fit together.
    pub(crate) fn load(files: TlsFiles) -> anyhow::Result<Tls> {
        let tried = read(&files)?;
        let acceptor = acceptor(&tried, files.client_optional)
            .with_context(|| format!("TLS with {}", files.certificate.display()))?;
        let now = Mutex::new(Now { acceptor, tried, told: None });
        Ok(Tls { files, now, counts: Counts::default() })
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts connections with the certificates of now.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.now().acceptor.clone()
    }

    /// Reads the files again. When they are not as they must be, what was read before stays, and the log says why,
    /// once.
    pub(crate) fn reload(&self) -> Reload {
        let content = read(&self.files);
        let mut now = self.now();
        let made = match content {
            Ok(content) if now.tried == content => return Reload::Unchanged,
            Ok(content) => {
                let made = acceptor(&content, self.files.client_optional);
                now.tried = content;
                made
            }
            Err(error) => Err(error),
        };
        match made {
            Ok(acceptor) => {
                (now.acceptor, now.told) = (acceptor, None);
                self.counts.reloads.fetch_add(1, Ordering::Relaxed);
                tracing::info!("the certificates were read anew; new connections use them");
                Reload::Done
            }
            Err(error) => {
                let error = format!("{error:#}");
                if now.told.as_ref() != Some(&error) {
                    self.counts.failures.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(
                        error,
                        "the certificates cannot be read anew; those read before stay in use"
                    );
                }
                now.told = Some(error);
                Reload::Failed
            }
        }
    }

    /// Notes a handshake that failed.
    pub(crate) fn handshake_failed(&self) {
        self.counts.handshakes.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the numbers of reloads, of failed reloads, and of failed handshakes.
    pub(crate) fn counts(&self) -> [u64; 3] {
        let Counts { reloads, failures, handshakes } = &self.counts;
        [reloads, failures, handshakes].map(|count| count.load(Ordering::Relaxed))
    }
}

fn read(files: &TlsFiles) -> anyhow::Result<Content> {
    let read = |path: &Path| -> anyhow::Result<Vec<u8>> {
        let about = || format!("cannot read {}", path.display());
        let size = std::fs::metadata(path).with_context(about)?.len();
        ensure!(
            size <= MOST_BYTES,
            "{} has {size} bytes; {MOST_BYTES} are allowed",
            path.display()
        );
        std::fs::read(path).with_context(about)
    };
    Ok(Content {
        certificate: read(&files.certificate)?,
        key: read(&files.key)?,
        client_ca: files.client_ca.as_deref().map(read).transpose()?,
    })
}

fn acceptor(content: &Content, client_optional: bool) -> anyhow::Result<TlsAcceptor> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let chain = certificates(&content.certificate, "the file of --tls-cert")?;
    let key = PrivateKeyDer::from_pem_slice(&content.key)
        .context("the file of --tls-key holds no private key in PEM")?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match &content.client_ca {
        Some(ca) => builder.with_client_cert_verifier(verifier(ca, client_optional, provider)?),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .context("the certificate and the key do not fit together")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(pem: &[u8], of: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{of} is no PEM"))?;
    ensure!(!all.is_empty(), "{of} holds no certificate in PEM");
    Ok(all)
}

fn verifier(
    ca: &[u8],
    optional: bool,
    provider: Arc<CryptoProvider>,
) -> anyhow::Result<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca, "the file of --tls-client-ca")? {
        roots
            .add(certificate)
            .context("the file of --tls-client-ca holds a certificate of no use")?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if optional { builder.allow_unauthenticated() } else { builder };
    builder.build().context("the file of --tls-client-ca")
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn own_signed() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let name = format!("backstitch-tls-{name}-{}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&folder).unwrap();
            Folder(folder)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, text).unwrap();
            path
        }

        fn files(&self, (certificate, key): (&str, &str)) -> TlsFiles {
            TlsFiles {
                certificate: self.write("cert.pem", certificate),
                key: self.write("key.pem", key),
                client_ca: None,
                client_optional: false,
            }
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_served_with_is_refused_with_a_reason() {
        let (first, second) = (own_signed(), own_signed());
        let table = [
            ("nothing", ("", first.1.as_str()), "holds no certificate"),
            ("no key", (&first.0, ""), "holds no private key"),
            ("a foreign key", (&first.0, &second.1), "do not fit together"),
            ("the key as a certificate", (&first.1, &first.1), "holds no certificate"),
        ];
        for (what, content, why) in table {
            let folder = Folder::new("refused");
            let error = Tls::load(folder.files(content)).err().unwrap();
            assert!(format!("{error:#}").contains(why), "{what}: {error:#}");
        }
        let folder = Folder::new("missing");
        let files = folder.files((&first.0, &first.1));
        std::fs::remove_file(&files.key).unwrap();
        let error = Tls::load(files).err().unwrap();
        assert!(format!("{error:#}").contains("cannot read"), "{error:#}");
    }

    #[test]
    fn bad_files_leave_what_was_read_before_and_good_ones_are_taken() {
        let folder = Folder::new("reload");
        let (first, second) = (own_signed(), own_signed());
        let tls = Tls::load(folder.files((&first.0, &first.1))).unwrap();
        assert_eq!(tls.reload(), Reload::Unchanged);
        // The certificate comes before its key: for a moment they do not fit.
        folder.write("cert.pem", &second.0);
        assert_eq!((tls.reload(), tls.counts()), (Reload::Failed, [0, 1, 0]));
        assert_eq!(tls.reload(), Reload::Unchanged, "the same content is not tried twice");
        folder.write("key.pem", &second.1);
        assert_eq!((tls.reload(), tls.counts()), (Reload::Done, [1, 1, 0]));
        std::fs::remove_file(folder.0.join("key.pem")).unwrap();
        for _ in 0..2 {
            assert_eq!((tls.reload(), tls.counts()), (Reload::Failed, [1, 2, 0]), "told once");
        }
        folder.write("key.pem", &second.1);
        assert_eq!(tls.reload(), Reload::Unchanged);
    }
}
