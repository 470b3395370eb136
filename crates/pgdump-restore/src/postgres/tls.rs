//! TLS to PostgreSQL with libpq's modes.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore};
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::options::{SslMode, TlsFiles};
use crate::error::{DatabaseError, DatabaseKind as D};

/// # Errors
/// `access_denied` if certificates or a key cannot be used.
pub(super) fn connector(
    mode: SslMode,
    files: &TlsFiles,
) -> Result<MakeRustlsConnect, DatabaseError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots = files.root.as_deref().map(root_certificates).transpose()?;
    let verifier = verifier(mode, roots, &provider)?;
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(rejected)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match &files.client {
        None => builder.with_no_client_auth(),
        Some((certificates, key)) => builder
            .with_client_auth_cert(client_certificates(certificates)?, client_key(key)?)
            .map_err(rejected)?,
    };
    Ok(MakeRustlsConnect::new(config))
}

fn failed(what: &str) -> DatabaseError {
    DatabaseError::new(D::AccessDenied, format!("cannot set up TLS: {what}"))
}

fn rejected(e: Error) -> DatabaseError {
    failed("rustls rejected the configuration").with_source(e)
}

type Pem<T> = Result<T, rustls::pki_types::pem::Error>;

fn root_certificates(pem: &str) -> Result<Arc<RootCertStore>, DatabaseError> {
    let all: Pem<Vec<_>> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let mut roots = RootCertStore::empty();
    for certificate in all.map_err(|_| failed("the root certificates are not valid PEM"))? {
        roots.add(certificate).map_err(rejected)?;
    }
    if roots.is_empty() {
        return Err(failed("the file contains no root certificate"));
    }
    Ok(Arc::new(roots))
}

fn client_certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, DatabaseError> {
    let all: Pem<Vec<_>> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    all.map_err(|_| failed("the client certificate is not valid PEM"))
}

fn client_key(pem: &SecretString) -> Result<PrivateKeyDer<'static>, DatabaseError> {
    let key = PrivateKeyDer::from_pem_slice(pem.expose_secret().as_bytes());
    key.map_err(|_| failed("the client key is not valid PEM"))
}

fn verifier(
    mode: SslMode,
    roots: Option<Arc<RootCertStore>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, DatabaseError> {
    Ok(match mode {
        SslMode::VerifyFull => strict_verifier(roots, provider)?,
        // As in libpq: a configured root certificate implies verification.
        SslMode::Require if roots.is_some() => {
            any_name(strict_verifier(roots, provider)?, provider)
        }
        SslMode::VerifyCa => any_name(strict_verifier(roots, provider)?, provider),
        _ => Arc::new(Lenient::AnyCertificate(provider.clone())),
    })
}

fn any_name(
    strict: Arc<dyn ServerCertVerifier>,
    provider: &Arc<CryptoProvider>,
) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Lenient::AnyName(provider.clone(), strict))
}

/// Checks everything, with the platform's root certificates if there are no others.
fn strict_verifier(
    roots: Option<Arc<RootCertStore>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, DatabaseError> {
    let Some(roots) = roots else {
        let platform = rustls_platform_verifier::Verifier::new(provider.clone());
        return Ok(Arc::new(platform.map_err(rejected)?));
    };
    let built = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build();
    Ok(built.map_err(|_| failed("the root certificates cannot be used"))?)
}

/// Certificate verification for libpq's modes that do not check everything.
#[derive(Debug)]
enum Lenient {
    /// `prefer` and `require`: encryption without authentication.
    AnyCertificate(Arc<CryptoProvider>),
    /// `verify-ca`: the certificate must chain to a trusted root; its host name is ignored.
    AnyName(Arc<CryptoProvider>, Arc<dyn ServerCertVerifier>),
}

impl Lenient {
    fn provider(&self) -> &CryptoProvider {
        match self {
            Lenient::AnyCertificate(provider) | Lenient::AnyName(provider, _) => provider,
        }
    }
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Lenient::AnyName(_, strict) = self else {
            return Ok(ServerCertVerified::assertion());
        };
        // The name is checked last, so this error means that everything else is valid.
        match strict.verify_server_cert(end_entity, intermediates, server_name, ocsp, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
