//! TLS to PostgreSQL with libpq's modes.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::options::{SslMode, TlsFiles};
use crate::error::{DatabaseError, FailureReason as R};

/// # Errors
/// `access_denied` if certificates or a key cannot be used.
pub(super) fn connector(
    mode: SslMode,
    files: &TlsFiles,
) -> Result<MakeRustlsConnect, DatabaseError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let failed =
        |what: &str| DatabaseError::new(R::AccessDenied, format!("cannot set up TLS: {what}"));
    let wrong = |e: Error| failed("rustls rejected the configuration").with_source(e);
    let roots = files.root.as_deref().map(|pem| {
        let mut roots = RootCertStore::empty();
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        for certificate in all.map_err(|_| failed("the root certificates are not valid PEM"))? {
            roots.add(certificate).map_err(wrong)?;
        }
        if roots.is_empty() {
            Err(failed("the file contains no root certificate"))
        } else {
            Ok(Arc::new(roots))
        }
    });
    let roots = roots.transpose()?;
    let mode = match mode {
        // As in libpq: a configured root certificate implies verification.
        SslMode::Require if roots.is_some() => SslMode::VerifyCa,
        mode => mode,
    };
    let verifier: Arc<dyn ServerCertVerifier> = match (mode, roots) {
        (SslMode::VerifyFull | SslMode::VerifyCa, Some(roots)) => {
            let built =
                WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build();
            built.map_err(|_| failed("the root certificates cannot be used"))?
        }
        (SslMode::VerifyFull | SslMode::VerifyCa, None) => {
            Arc::new(rustls_platform_verifier::Verifier::new(provider.clone()).map_err(wrong)?)
        }
        _ => Arc::new(Lenient::AnyCertificate(provider.clone())),
    };
    let verifier = match mode {
        SslMode::VerifyCa => Arc::new(Lenient::AnyName(provider.clone(), verifier)),
        _ => verifier,
    };
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match &files.client {
        None => builder.with_no_client_auth(),
        Some((certificates, key)) => {
            use secrecy::ExposeSecret;
            let all: Result<Vec<_>, _> =
                CertificateDer::pem_slice_iter(certificates.as_bytes()).collect();
            let all = all.map_err(|_| failed("the client certificate is not valid PEM"))?;
            let key = PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes());
            let key = key.map_err(|_| failed("the client key is not valid PEM"))?;
            builder.with_client_auth_cert(all, key).map_err(wrong)?
        }
    };
    Ok(MakeRustlsConnect::new(config))
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
