//! The lines of a log file with their numbers, plain or gzip, in bounded memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;

/// Longest line that is read; servers refuse longer requests.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// First bytes of a gzip file.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Lines in order, from 1.
pub(super) struct Lines {
    reader: Box<dyn BufRead + Send>,
    read: Arc<AtomicU64>,
    bytes: u64,
    number: u64,
}

/// One line; bytes that are no UTF-8 are replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Numbered {
    /// From 1.
    pub(super) number: u64,
    /// Without its end; `None` when it is longer than a line may be.
    pub(super) text: Option<String>,
}

impl Lines {
    /// Opens `path`; gzip is recognised by its first bytes.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let read = Arc::new(AtomicU64::new(0));
        let mut file = BufReader::new(Counted { inner: file, read: Arc::clone(&read) });
        let reader: Box<dyn BufRead + Send> = if file.fill_buf()?.starts_with(&GZIP_MAGIC) {
            Box::new(BufReader::new(MultiGzDecoder::new(file)))
        } else {
            Box::new(file)
        };
        Ok(Self { reader, read, bytes, number: 0 })
    }

    /// Share of the file that was read, 0 to 1.
    pub(super) fn share(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a share for a progress line")]
        let share = self.read.load(Ordering::Relaxed) as f64 / self.bytes.max(1) as f64;
        share.min(1.0)
    }

    /// The next line; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Numbered>> {
        let mut bytes = Vec::new();
        let mut limited = (&mut self.reader).take(LINE_BYTES_MAX);
        if limited.read_until(b'\n', &mut bytes)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        let number = self.number;
        if bytes.last() != Some(&b'\n') && bytes.len() as u64 == LINE_BYTES_MAX {
            self.skip_line()?;
            return Ok(Some(Numbered { number, text: None }));
        }
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_end_matches(['\n', '\r']).to_owned();
        Ok(Some(Numbered { number, text: Some(text) }))
    }

    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let buffer = self.reader.fill_buf()?;
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let length = end.map_or(buffer.len(), |end| end + 1);
            let done = end.is_some() || buffer.is_empty();
            self.reader.consume(length);
            if done {
                return Ok(());
            }
        }
    }
}

struct Counted {
    inner: File,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.read.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn lines_of(bytes: &[u8]) -> Vec<(u64, Option<String>)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, bytes).unwrap();
        let mut lines = Lines::open(&path).unwrap();
        let mut found = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            found.push((line.number, line.text));
        }
        assert!((lines.share() - 1.0).abs() < f64::EPSILON);
        found
    }

    #[test]
    fn plain_and_gzip_files_have_the_same_lines() {
        let text = b"one\r\ntwo\n\nlast";
        let expect: Vec<_> = [(1, "one"), (2, "two"), (3, ""), (4, "last")]
            .map(|(n, t)| (n, Some(t.to_owned())))
            .into();
        assert_eq!(lines_of(text), expect);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text).unwrap();
        assert_eq!(lines_of(&gzip.finish().unwrap()), expect);
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_whole_and_counted() {
        let limit = usize::try_from(LINE_BYTES_MAX).unwrap();
        let mut text = vec![b'x'; 3 * limit];
        text.extend(b"\nafter\n");
        text.extend(vec![b'y'; limit - 1]);
        text.push(b'\n');
        let found = lines_of(&text);
        assert_eq!(found[..2], [(1, None), (2, Some("after".to_owned()))]);
        assert_eq!(found[2].1.as_ref().map(String::len), Some(limit - 1));
        assert_eq!(found.len(), 3);
    }
}
