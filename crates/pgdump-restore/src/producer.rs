//! Reads the archive and puts chunks on the work queue for the sessions; for SQL text, it also adds the
//! steps of the restore.

mod chunk_pusher;
mod pieces;
mod script_producer;
mod span_check;
mod statement_numbers;
mod toc_producer;

use std::sync::Arc;

use self::chunk_pusher::ChunkPusher;
use self::script_producer::ScriptProducer;
use self::toc_producer::TocProducer;
use super::load_context::{LoadContent, LoadContext};
use super::work_queue::WorkQueue;
use crate::error::RestoreError;
use pgdump_archive::DataStream;

/// Reads one stream of an archive to its end. Runs on a thread that may block.
pub(super) fn run(
    work_queue: Arc<WorkQueue>,
    job: Arc<LoadContext>,
    stream: DataStream,
) -> Result<(), RestoreError> {
    let chunks = ChunkPusher::new(work_queue.clone(), job.clone());
    match &job.content {
        LoadContent::Toc(entries) => stream.read(&mut TocProducer::new(chunks, entries))?,
        LoadContent::Script(_) => {
            let mut producer = ScriptProducer::new(chunks);
            let read = stream.read(&mut producer);
            let has_ended_early = producer.has_ended_early();
            if !has_ended_early {
                read?;
            }
            producer.flush()?;
            // What was not read may have the names that the selection has.
            if !has_ended_early {
                producer.check_recorded()?;
                producer.check_masked()?;
                job.rewriter.check_selection()?;
            }
        }
    }
    work_queue.change(|s| s.stream_ended());
    job.enter_stage(&work_queue);
    Ok(())
}
