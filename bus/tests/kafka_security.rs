//! TLS, mutual TLS, SASL SCRAM and OAUTHBEARER on a real Apache Kafka.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "broker-tests")]

use std::{fs, path::Path, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use honeyguide_bus::{
    Producer, Record, Topic,
    kafka::{Config, KafkaProducer, SaslMechanism, Secret, SecurityProtocol, topics},
};
use kafka_node::{Cluster, Jars, Options};
use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, KeyPair};

/// A certificate authority of our own.
struct Authority {
    certificate: Certificate,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, "authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, key }
    }

    /// Writes `ca.pem`, and `NAME.crt`, `NAME.key` and both in `NAME.pem`.
    fn issue(&self, directory: &Path, name: &str) {
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params
            .signed_by(&key, &self.certificate, &self.key)
            .unwrap();
        let write = |file: String, text: String| fs::write(directory.join(file), text).unwrap();
        write("ca.pem".to_owned(), self.certificate.pem());
        write(format!("{name}.crt"), certificate.pem());
        write(format!("{name}.key"), key.serialize_pem());
        write(
            format!("{name}.pem"),
            key.serialize_pem() + &certificate.pem(),
        );
    }
}

/// A broker that wants TLS with a client certificate if `mutual`, and SASL by
/// either mechanism.
fn broker(directory: &Path, mutual: bool) -> Cluster {
    let jaas = |mechanism: &str, module: &str, options: &str| {
        (
            format!("listener.name.client.{mechanism}.sasl.jaas.config"),
            format!("org.apache.kafka.common.security.{module} required {options};"),
        )
    };
    let file = |name: &str| directory.join(name).display().to_string();
    let mut properties: Vec<(String, String)> = [
        ("ssl.keystore.type", "PEM".to_owned()),
        ("ssl.keystore.location", file("broker.pem")),
        ("ssl.truststore.type", "PEM".to_owned()),
        ("ssl.truststore.location", file("ca.pem")),
        (
            "listener.name.client.ssl.client.auth",
            if mutual { "required" } else { "none" }.to_owned(),
        ),
        (
            "sasl.enabled.mechanisms",
            "SCRAM-SHA-512,OAUTHBEARER".to_owned(),
        ),
        (
            "sasl.mechanism.inter.broker.protocol",
            "SCRAM-SHA-512".to_owned(),
        ),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    properties.push(jaas(
        "scram-sha-512",
        "scram.ScramLoginModule",
        r#"username="broker" password="broker-secret""#,
    ));
    properties.push(jaas(
        "oauthbearer",
        "oauthbearer.OAuthBearerLoginModule",
        r#"unsecuredLoginStringClaim_sub="broker""#,
    ));
    let options = Options {
        protocol: "SASL_SSL".to_owned(),
        properties,
        scram: ["broker", "honeyguide"]
            .map(|name| format!("SCRAM-SHA-512=[name={name},password={name}-secret]"))
            .into(),
        ..Options::default()
    };
    let data = directory.join("kafka");
    Cluster::start(&Jars::find().unwrap(), &data, options).unwrap()
}

fn config(cluster: &Cluster, directory: &Path) -> Config {
    let password_file = directory.join("password");
    fs::write(&password_file, "honeyguide-secret\n").unwrap();
    Config {
        brokers: cluster.bootstrap(),
        partitions: 1,
        security_protocol: SecurityProtocol::SaslSsl,
        ca_file: directory.join("ca.pem"),
        sasl_username: "honeyguide".to_owned(),
        sasl_password_file: password_file,
        ..Config::default()
    }
}

/// Makes the topics and publishes a record.
async fn publish(config: Config) -> Result<(), String> {
    let config = config.validate().map_err(|error| error.to_string())?;
    topics::apply(&config)
        .await
        .map_err(|error| error.to_string())?;
    let producer = KafkaProducer::connect(config)
        .await
        .map_err(|error| error.to_string())?;
    let record = Record {
        topic: Topic::Histograms,
        partition: 0,
        key: Vec::new(),
        timestamp_ns: 1_700_000_000_000_000_000,
        payload: vec![1],
    };
    producer
        .publish(record)
        .await
        .map_err(|error| error.to_string())
}

/// An unsecured JWT, as the broker's default validator takes it.
fn token() -> String {
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let claims = format!(r#"{{"sub":"honeyguide","iat":{now},"exp":{}}}"#, now + 3600);
    format!("{header}.{}.", URL_SAFE_NO_PAD.encode(claims))
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_and_tokens_over_tls_are_accepted_and_wrong_ones_refused() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    Authority::new().issue(directory, "broker");
    let cluster = broker(directory, false);
    let good = config(&cluster, directory);
    publish(good.clone()).await.unwrap();

    let token_file = directory.join("token");
    fs::write(&token_file, token()).unwrap();
    let by_token = Config {
        sasl_mechanism: SaslMechanism::OauthBearer,
        oauth_token_file: token_file,
        ..good.clone()
    };
    publish(by_token).await.unwrap();

    let wrong_password = Config {
        sasl_password_file: Default::default(),
        sasl_password: Secret::new("guessed-secret"),
        ..good.clone()
    };
    let other_authority = directory.join("other");
    fs::create_dir(&other_authority).unwrap();
    Authority::new().issue(&other_authority, "other");
    let wrong_authority = Config {
        ca_file: other_authority.join("ca.pem"),
        ..good.clone()
    };
    let no_tls = Config {
        security_protocol: SecurityProtocol::Plaintext,
        ..good
    };
    for config in [wrong_password, wrong_authority, no_tls] {
        let refused = tokio::time::timeout(Duration::from_secs(60), publish(config)).await;
        let error = refused.expect("an answer within a minute").unwrap_err();
        assert!(error.contains(&cluster.bootstrap()), "{error}");
        assert!(!error.contains("-secret"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mutual_tls_wants_our_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let authority = Authority::new();
    authority.issue(directory, "broker");
    authority.issue(directory, "client");
    let cluster = broker(directory, true);
    let without = config(&cluster, directory);
    let with = Config {
        certificate_file: directory.join("client.crt"),
        key_file: directory.join("client.key"),
        ..without.clone()
    };
    publish(with).await.unwrap();
    publish(without).await.unwrap_err();
}
