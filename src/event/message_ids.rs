//! The ids of requests whose messages name none.

use crate::job::OWN_MESSAGE;

/// The id of a request whose message names none. Every delivery of a message has the same one.
pub fn id_of_message(message_id: &str) -> String {
    format!("{OWN_MESSAGE}{message_id}")
}

/// An id that is there. One that is left out is empty, so an empty one is an error.
pub(super) fn named_id<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<String, D::Error> {
    use serde::Deserialize;
    let id = String::deserialize(deserializer)?;
    if id.is_empty() {
        return Err(serde::de::Error::custom(
            "request_id: must not be empty; leave it out to use the message's id",
        ));
    }
    Ok(id)
}
