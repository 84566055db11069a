use super::{Journal, init};
use std::io::Write;
use std::sync::{Arc, Mutex};
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);
impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
impl MakeWriter<'_> for Kept {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[test]
fn lines_for_the_journal_begin_with_their_priority() {
    let kept = Kept::default();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).event_format(Journal).with_writer(kept.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        tracing::warn!(node = "b", "peer is silent");
        tracing::info!("good");
    });
    let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text, "<4>peer is silent node=\"b\"\n<6>good\n");
}

#[test]
fn a_wrong_level_is_named() {
    let error = init(Some("keepcall=loud"), false).unwrap_err().to_string();
    assert!(error.contains("keepcall=loud") && error.contains("debug"), "{error}");
}
