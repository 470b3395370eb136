//! Documents that the configuration names: files that people write, such as the checks of the data. Errors name the
//! file and the place in it, and never quote it.

use serde::de::DeserializeOwned;

use super::values::{ConfigErrors, non_empty};

/// A document as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    pub path: String,
    pub text: String,
}

impl Document {
    /// Reads the document of a variable, if it is set.
    pub(super) fn read(
        variable: &str,
        file: &Option<String>,
        errors: &mut ConfigErrors,
    ) -> Option<Self> {
        let path = non_empty(file)?.to_owned();
        match std::fs::read_to_string(&path) {
            Ok(text) => Some(Document { path, text }),
            Err(e) => {
                errors.add(variable, format!("{path}: cannot be read: {}", e.kind()));
                None
            }
        }
    }

    /// Parses YAML.
    ///
    /// # Errors
    /// The file, what is wrong and where. Names of fields are quoted, values are not.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, String> {
        let parsed: Result<T, serde_saphyr::Error> = serde_saphyr::from_str(&self.text);
        parsed.map_err(|e| {
            let e = e.without_snippet();
            let what = without_values(&e.to_string());
            // The place is at the end of most messages, and may be lost with a value.
            match e.location() {
                Some(at) if !what.contains(", column ") => format!(
                    "{}: {what} at line {}, column {}",
                    self.path,
                    at.line(),
                    at.column()
                ),
                _ => format!("{}: {what}", self.path),
            }
        })
    }
}

/// Beginnings of messages that go on with a value of the document.
const BEFORE_VALUES: [&str; 4] = [
    "unknown variant",
    "invalid type",
    "invalid value",
    "non-finite float",
];

/// A parser's message without the value that it quotes.
fn without_values(message: &str) -> String {
    let Some(head) = BEFORE_VALUES
        .iter()
        .find(|head| message.starts_with(**head))
    else {
        return message.to_owned();
    };
    match message.rsplit_once(", expected ") {
        Some((_, expected)) => format!("{head}, expected {expected}"),
        None => (*head).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[serde(rename = "number")]
        _number: Option<f64>,
        #[serde(rename = "word")]
        _word: Option<KnownWord>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum KnownWord {
        Known,
    }

    #[test]
    fn mistakes_name_file_and_place_and_quote_no_value() {
        for (text, parts) in [
            ("{nmber: secret}", &["nmber", "line 1"][..]),
            (
                "number: 1\nword: secret",
                &["expected one of known", "line 2"],
            ),
            ("number: secret", &["line 1"]),
            ("number: 'secret", &["line 1"]),
            ("secret", &["line 1"]),
        ] {
            let document = Document {
                path: "/etc/sample.yaml".into(),
                text: text.into(),
            };
            let said = document.parse::<Sample>().unwrap_err();
            assert!(said.starts_with("/etc/sample.yaml: "), "{said}");
            assert!(!said.contains("secret"), "{said}");
            for part in parts {
                assert!(said.contains(part), "{part}: {said}");
            }
        }
    }

    #[test]
    fn a_value_that_looks_like_the_message_is_left_out_too() {
        let message = "unknown variant `a, expected b`, expected one of c, d at line 1, column 2";
        assert_eq!(
            without_values(message),
            "unknown variant, expected one of c, d at line 1, column 2"
        );
        assert_eq!(without_values("unknown field `x`"), "unknown field `x`");
        assert_eq!(without_values("invalid value: secret"), "invalid value");
    }
}
