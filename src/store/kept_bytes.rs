//! The memory of documents that were read from a store, where anybody may have written them.

/// Roughly the memory that a document takes, in bytes: its text, and the fixed part of each of its values.
pub(crate) fn bytes_of<T: serde::Serialize>(document: &T) -> usize {
    const VALUE: usize = 24;
    #[derive(Default)]
    struct ByteCounter(usize);
    impl std::io::Write for ByteCounter {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            self.0 += text.len() + VALUE * memchr::memchr_iter(b',', text).count();
            Ok(text.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counter = ByteCounter::default();
    match serde_json::to_writer(&mut counter, document) {
        Ok(()) => counter.0 + size_of::<T>(),
        Err(_) => usize::MAX,
    }
}
