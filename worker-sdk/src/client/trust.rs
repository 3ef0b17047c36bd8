//! Certificates that a client trusts for TLS, beside those of the machine, and its own certificate.

use std::time::Duration;

#[cfg(feature = "tls")]
use super::{Client, ClientError};

/// Issuers of servers' certificates, and the client's own certificate.
#[derive(Clone, Default)]
pub(super) struct Trust {
    #[cfg(feature = "tls")]
    issuers: Vec<reqwest::Certificate>,
    #[cfg(feature = "tls")]
    identity: Option<reqwest::Identity>,
}

impl Trust {
    /// Returns connections to servers that are trusted.
    pub(super) fn connections(&self) -> Result<reqwest::Client, reqwest::Error> {
        let builder = reqwest::Client::builder()
            .tcp_nodelay(true)
            .connect_timeout(Duration::from_secs(10))
            .user_agent(concat!("backstitch-sdk/", env!("CARGO_PKG_VERSION")));
        #[cfg(feature = "tls")]
        let builder = match &self.identity {
            Some(identity) => builder.identity(identity.clone()),
            None => builder,
        };
        #[cfg(feature = "tls")]
        let builder = builder.tls_certs_merge(self.issuers.iter().cloned());
        builder.build()
    }
}

#[cfg(feature = "tls")]
impl Client {
    /// Trusts servers whose certificates these issuers signed (PEM, one or several), beside those whom the machine
    /// trusts.
    ///
    /// # Errors
    /// [`ClientError::Setup`] when there is no certificate in it.
    pub fn trust(mut self, pem: &[u8]) -> Result<Client, ClientError> {
        let setup = |why: String| ClientError::Setup(format!("the issuers to trust: {why}"));
        let issuers = reqwest::Certificate::from_pem_bundle(pem)
            .map_err(|error| setup(crate::http::chain(&error)))?;
        if issuers.is_empty() {
            return Err(setup("there is no certificate in PEM".to_owned()));
        }
        self.trust.issuers.extend(issuers);
        self.connect_anew()
    }

    /// Shows itself to servers with this certificate; `pem` holds it and its private key.
    ///
    /// # Errors
    /// [`ClientError::Setup`] when one of them is missing.
    pub fn identity(mut self, pem: &[u8]) -> Result<Client, ClientError> {
        let identity = reqwest::Identity::from_pem(pem).map_err(|error| {
            ClientError::Setup(format!("the client's certificate: {}", crate::http::chain(&error)))
        })?;
        self.trust.identity = Some(identity);
        self.connect_anew()
    }

    fn connect_anew(self) -> Result<Client, ClientError> {
        let http = self.trust.connections();
        let http = http.map_err(|error| ClientError::Setup(crate::http::chain(&error)))?;
        Ok(Client { http, ..self })
    }
}
