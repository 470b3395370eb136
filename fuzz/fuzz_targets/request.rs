#![no_main]
//! Any message as a request and as a notification: an answer, never a panic.

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use pgrestored::event::{GcsNotification, RestoreRequest};

fuzz_target!(|data: (Vec<u8>, Vec<(String, String)>, u8)| {
    let (body, pairs, form) = data;
    let mut attributes: HashMap<String, String> = pairs.into_iter().collect();
    match form % 4 {
        0 => {}
        1 => drop(attributes.insert("ce-specversion".into(), "1.0".into())),
        2 => drop(attributes.insert("content-type".into(), "application/cloudevents+json".into())),
        _ => {
            for key in ["notificationConfig", "eventType", "bucketId", "objectId", "objectGeneration"] {
                attributes.entry(key.into()).or_default();
            }
        }
    }
    if let Some(notification) = GcsNotification::from_attributes(&attributes) {
        let _ = notification.request_id();
    }
    if let Ok(request) = RestoreRequest::from_message(&body, &attributes) {
        // What was read can be written and read again, and means the same.
        let again = serde_json::to_vec(&request).unwrap();
        let again = RestoreRequest::from_message(&again, &HashMap::new()).unwrap();
        assert_eq!(again.digest(), request.digest());
        if let Ok(job) = request.into_job(Some("app")) {
            assert!(!job.request_id().is_empty());
        }
    }
});
