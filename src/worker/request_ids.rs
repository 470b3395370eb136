//! Under which id a message is answered.

use crate::error::RestoreError;
use crate::event::{RestoreRequest, id_of_message};
use crate::job::{check_request_id, is_own_id};
use crate::queue::Delivery;

/// The id of the request in a message.
pub(super) fn id_of(request: &Result<RestoreRequest, RestoreError>, delivery: &Delivery) -> String {
    match request {
        // An attribute is no id: a publisher that always sends the same body always sends the same attributes.
        Ok(r) if r.request_id.is_empty() => id_of_message(&delivery.message_id),
        Ok(r) if !is_own_id(&r.request_id) => r.request_id.clone(),
        _ => id_of_unparsed(delivery),
    }
}

/// The id under which to answer a request that cannot be parsed: from its body, its attribute or the
/// message id.
fn id_of_unparsed(delivery: &Delivery) -> String {
    /// The only field that is kept: a message may have 10 MB, and anything in it.
    #[derive(serde::Deserialize)]
    struct Identified {
        request_id: String,
    }
    let body: Option<Identified> = serde_json::from_slice(&delivery.data).ok();
    let in_body = body.as_ref().map(|b| b.request_id.as_str());
    let named = in_body.or(delivery.attributes.get("request_id").map(String::as_str));
    // Never answer under an id of the form that the program generates: the event could be taken for that
    // of another job.
    let named = named.filter(|id| check_request_id(id).is_ok());
    named.map_or_else(|| id_of_message(&delivery.message_id), str::to_owned)
}
