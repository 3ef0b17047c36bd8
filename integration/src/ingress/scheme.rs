//! Schemes by which sources authenticate, as they are configured; those of well-known senders are presets. A configured
//! scheme is the one that the protocol names.

pub use backstitch_saga::protocol::{
    SourceEncoding as Encoding, SourceHash as Algorithm, SourceVerification as SchemeDocument,
};

/// The text that is signed if the scheme says nothing.
const BODY: &str = "{body}";

/// Form of the header of a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A prefix and the signature.
    Plain(String),
    /// `t=…,v1=…,v1=…`: the timestamp and signatures as fields.
    Fields { timestamp: &'static str, signature: &'static str },
    /// `v1,… v1,…`: signatures separated by spaces, each with its version.
    List { version: &'static str },
}

/// Piece of the text that is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Body,
    Timestamp,
    Id,
}

/// A scheme as it is executed.
#[derive(Clone, Debug)]
pub(super) enum Scheme {
    Hmac {
        header: String,
        algorithm: Algorithm,
        encoding: Encoding,
        form: Form,
        signed: Vec<Piece>,
        timestamp_header: Option<String>,
        id_header: Option<String>,
    },
    Basic {
        user: String,
    },
    Bearer,
    MutualTls {
        header: String,
        allowed: Vec<String>,
    },
    None,
}

impl Scheme {
    /// Checks a scheme.
    ///
    /// # Errors
    /// A message for people.
    pub(super) fn new(document: &SchemeDocument) -> Result<Scheme, String> {
        let hmac = |header: &str,
                    encoding,
                    form,
                    signed: &str,
                    timestamp: Option<&str>|
         -> Result<Scheme, String> {
            Ok(Scheme::Hmac {
                header: header.to_owned(),
                algorithm: Algorithm::Sha256,
                encoding,
                form,
                signed: pieces(signed)?,
                timestamp_header: timestamp.map(str::to_owned),
                id_header: None,
            })
        };
        match document {
            SchemeDocument::StandardWebhooks {} => Ok(standard_webhooks()),
            SchemeDocument::Github {} => {
                let form = Form::Plain("sha256=".to_owned());
                hmac("x-hub-signature-256", Encoding::Hex, form, "{body}", None)
            }
            SchemeDocument::Stripe {} => {
                let form = Form::Fields { timestamp: "t", signature: "v1" };
                hmac("stripe-signature", Encoding::Hex, form, "{ts}.{body}", None)
            }
            SchemeDocument::Shopify {} => hmac(
                "x-shopify-hmac-sha256",
                Encoding::Base64,
                Form::Plain(String::new()),
                "{body}",
                None,
            ),
            SchemeDocument::Slack {} => {
                let timestamp = Some("x-slack-request-timestamp");
                hmac(
                    "x-slack-signature",
                    Encoding::Hex,
                    Form::Plain("v0=".to_owned()),
                    "v0:{ts}:{body}",
                    timestamp,
                )
            }
            SchemeDocument::Hmac { .. } => free_hmac(document),
            SchemeDocument::Basic { user } if user.is_empty() || user.contains(':') => {
                Err("a user is not empty, and has no colon".to_owned())
            }
            SchemeDocument::Basic { user } => Ok(Scheme::Basic { user: user.clone() }),
            SchemeDocument::Bearer {} => Ok(Scheme::Bearer),
            SchemeDocument::MutualTls { header, allowed } => {
                check_names(&[header])?;
                if allowed.is_empty() || allowed.len() > 100 || allowed.iter().any(String::is_empty)
                {
                    return Err("'allowed' has 1 to 100 values".to_owned());
                }
                Ok(Scheme::MutualTls { header: header.clone(), allowed: allowed.clone() })
            }
            SchemeDocument::None {} => Ok(Scheme::None),
        }
    }

    /// Returns whether the scheme has secrets.
    pub(super) fn has_secrets(&self) -> bool {
        !matches!(self, Scheme::MutualTls { .. } | Scheme::None)
    }
}

fn standard_webhooks() -> Scheme {
    Scheme::Hmac {
        header: "webhook-signature".to_owned(),
        algorithm: Algorithm::Sha256,
        encoding: Encoding::Base64,
        form: Form::List { version: "v1" },
        signed: vec![
            Piece::Id,
            Piece::Text(".".to_owned()),
            Piece::Timestamp,
            Piece::Text(".".to_owned()),
            Piece::Body,
        ],
        timestamp_header: Some("webhook-timestamp".to_owned()),
        id_header: Some("webhook-id".to_owned()),
    }
}

/// Checks an HMAC whose parts are configured one by one.
fn free_hmac(document: &SchemeDocument) -> Result<Scheme, String> {
    let SchemeDocument::Hmac { header, algorithm, encoding, prefix, signed, timestamp_header } =
        document
    else {
        return Err("not an HMAC".to_owned());
    };
    let signed = pieces(signed.as_deref().unwrap_or(BODY))?;
    let names: Vec<&String> =
        [Some(header), timestamp_header.as_ref()].into_iter().flatten().collect();
    check_names(&names)?;
    match (signed.contains(&Piece::Timestamp), timestamp_header) {
        (true, None) => return Err("{ts} needs the header of the timestamp".to_owned()),
        (false, Some(_)) => {
            return Err("a timestamp that is not signed ({ts}) protects nothing".to_owned());
        }
        _ => {}
    }
    Ok(Scheme::Hmac {
        header: header.clone(),
        algorithm: algorithm.unwrap_or(Algorithm::Sha256),
        encoding: encoding.unwrap_or(Encoding::Hex),
        form: Form::Plain(prefix.clone().unwrap_or_default()),
        signed,
        timestamp_header: timestamp_header.clone(),
        id_header: None,
    })
}

/// Refuses names that no header has.
fn check_names(names: &[&String]) -> Result<(), String> {
    let is_name = |name: &&&String| {
        !name.is_empty()
            && name.len() <= 100
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if names.iter().all(|name| is_name(&name)) {
        Ok(())
    } else {
        Err("the name of a header consists of letters, digits, '-' and '_'".to_owned())
    }
}

fn pieces(signed: &str) -> Result<Vec<Piece>, String> {
    if signed.len() > 200 {
        return Err("the text that is signed has at most 200 bytes beside the body".to_owned());
    }
    let mut found = Vec::new();
    let mut rest = signed;
    while let Some((before, after)) = rest.split_once('{') {
        if !before.is_empty() {
            found.push(Piece::Text(before.to_owned()));
        }
        let (name, behind) = after.split_once('}').ok_or("a '{' is closed by a '}'")?;
        found.push(match name {
            "body" => Piece::Body,
            "ts" => Piece::Timestamp,
            _ => return Err(format!("'{{{name}}}' is neither {{body}} nor {{ts}}")),
        });
        rest = behind;
    }
    if !rest.is_empty() {
        found.push(Piece::Text(rest.to_owned()));
    }
    if found.iter().filter(|piece| **piece == Piece::Body).count() != 1 {
        return Err("the text that is signed has {body} once".to_owned());
    }
    Ok(found)
}
