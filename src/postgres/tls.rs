//! TLS to PostgreSQL, by libpq's modes.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{SslMode, TlsFiles};
use crate::error::{DatabaseError, FailureReason as R};

/// # Errors
/// `access_denied`, for certificates or a key that cannot be used.
pub(super) fn connector(mode: SslMode, files: &TlsFiles) -> Result<MakeRustlsConnect, DatabaseError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let failed = |what: &str| DatabaseError::new(R::AccessDenied, format!("TLS cannot be set up: {what}"));
    let wrong = |e: Error| failed("rustls refuses it").with_source(e);
    let roots = files.root.as_deref().map(|pem| {
        let mut roots = RootCertStore::empty();
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        for certificate in all.map_err(|_| failed("the root certificates are no PEM"))? {
            roots.add(certificate).map_err(wrong)?;
        }
        match roots.is_empty() {
            true => Err(failed("there is no root certificate in the file")),
            false => Ok(Arc::new(roots)),
        }
    });
    let roots = roots.transpose()?;
    let verifier: Arc<dyn ServerCertVerifier> = match (mode, roots) {
        (SslMode::VerifyFull | SslMode::VerifyCa, Some(roots)) => {
            let built = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build();
            built.map_err(|_| failed("the root certificates cannot be used"))?
        }
        (SslMode::VerifyFull | SslMode::VerifyCa, None) => {
            Arc::new(rustls_platform_verifier::Verifier::new(provider.clone()).map_err(wrong)?)
        }
        _ => Arc::new(AnyCertificate(provider.clone())),
    };
    let verifier = if mode == SslMode::VerifyCa { Arc::new(AnyName(verifier)) } else { verifier };
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match &files.client {
        None => builder.with_no_client_auth(),
        Some((certificates, key)) => {
            use secrecy::ExposeSecret;
            let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificates.as_bytes()).collect();
            let all = all.map_err(|_| failed("the client's certificate is no PEM"))?;
            let key = PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes());
            let key = key.map_err(|_| failed("the client's key is no PEM"))?;
            builder.with_client_auth_cert(all, key).map_err(wrong)?
        }
    };
    Ok(MakeRustlsConnect::new(config))
}

/// `verify-ca`: the certificate must be of a root that we know, whatever name it has.
#[derive(Debug)]
struct AnyName(Arc<dyn ServerCertVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // The name is looked at last, so this error means that all else is right.
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp, now) {
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
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// `prefer` and `require` encrypt without checking whom they talk to, as in libpq.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
