// SPDX-License-Identifier: MPL-2.0

//! Event files of TensorBoard: TFRecords of `Event` messages.

use std::fs::{File, OpenOptions};
use std::io::{self, Cursor, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use image::RgbImage;
use prost::Message;

use crate::{Error, Result};

/// `SessionLog.SessionStatus` of a start.
const START: i32 = 1;

/// The event file of one session of a run. Every start or resumption of the run has a file of its own.
#[derive(Debug)]
pub struct Events {
    path: PathBuf,
    file: File,
}

impl Events {
    /// Creates a new file in `folder` for a run that starts after `step` steps. TensorBoard hides the events of
    /// earlier files after that step.
    pub fn create(folder: &Path, step: u64) -> Result<Self> {
        let seconds = now() as u64;
        let mut number = 0;
        let (path, file) = loop {
            // TensorBoard reads the files in the order of their names.
            let name =
                format!("events.out.tfevents.{seconds:010}.fastganseg.{}.{number:04}", std::process::id());
            let path = folder.join(name);
            match OpenOptions::new().append(true).create_new(true).open(&path) {
                Ok(file) => break (path, file),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 10_000 => number += 1,
                Err(source) => return Err(Error::write(&path, source)),
            }
        };
        let mut events = Self { path, file };
        events.write(0, Payload::FileVersion("brain.Event:2".into()))?;
        events.write(step + 1, Payload::SessionLog(SessionLog { status: START }))?;
        Ok(events)
    }

    /// Writes scalars by name. TensorBoard groups them by the part of the name before a `/`.
    pub fn scalars(&mut self, step: u64, values: &[(String, f64)]) -> Result<()> {
        let value = |(tag, value): &(String, f64)| Value {
            tag: tag.clone(),
            content: Some(Content::Scalar(*value as f32)),
        };
        self.write(step, Payload::Summary(Summary { value: values.iter().map(value).collect() }))
    }

    pub fn picture(&mut self, step: u64, tag: &str, picture: &RgbImage) -> Result<()> {
        let mut png = Cursor::new(Vec::new());
        picture
            .write_to(&mut png, image::ImageFormat::Png)
            .map_err(|source| Error::write(&self.path, io::Error::other(source)))?;
        let (height, width) = (picture.height() as i32, picture.width() as i32);
        let content = Content::Image(Image { height, width, colorspace: 3, png: png.into_inner() });
        let value = vec![Value { tag: tag.to_owned(), content: Some(content) }];
        self.write(step, Payload::Summary(Summary { value }))
    }

    fn write(&mut self, step: u64, payload: Payload) -> Result<()> {
        let event = Event { wall_time: now(), step: step as i64, payload: Some(payload) };
        // A single write, so that a concurrent reader rarely gets part of a record.
        self.file
            .write_all(&record(&event.encode_to_vec()))
            .map_err(|source| Error::write(&self.path, source))
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// Returns a TFRecord: length, checksum of the length, bytes, checksum of the bytes.
fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let checksum = |bytes: &[u8]| masked(crc32c::crc32c(bytes)).to_le_bytes();
    [&length[..], &checksum(&length), bytes, &checksum(bytes)].concat()
}

/// Masks a checksum as TensorFlow does, since the CRC of data that contains CRCs is weak.
fn masked(checksum: u32) -> u32 {
    checksum.rotate_right(15).wrapping_add(0xa282_ead8)
}

// The messages of TensorFlow's `event.proto` and `summary.proto` that TensorBoard needs for scalars and images.

#[derive(Clone, PartialEq, prost::Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "Payload", tags = "3, 5, 7")]
    payload: Option<Payload>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Payload {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

/// Start of a session. Earlier events at the same or a later step are out of date.
#[derive(Clone, PartialEq, prost::Message)]
struct SessionLog {
    /// 1 is a start.
    #[prost(int32, tag = "1")]
    status: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(oneof = "Content", tags = "2, 4")]
    content: Option<Content>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Content {
    #[prost(float, tag = "2")]
    Scalar(f32),
    #[prost(message, tag = "4")]
    Image(Image),
}

/// `colorspace` 3 is RGB.
#[derive(Clone, PartialEq, prost::Message)]
struct Image {
    #[prost(int32, tag = "1")]
    height: i32,
    #[prost(int32, tag = "2")]
    width: i32,
    #[prost(int32, tag = "3")]
    colorspace: i32,
    #[prost(bytes = "vec", tag = "4")]
    png: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a file and verifies every checksum against [`reference_checksum`].
    fn read(path: &Path) -> Vec<Event> {
        let bytes = std::fs::read(path).unwrap();
        let mut rest = &bytes[..];
        let mut events = Vec::new();
        while !rest.is_empty() {
            let (length, tail) = rest.split_at(8);
            let (checksum, tail) = tail.split_at(4);
            assert_eq!(checksum, reference_checksum(length).to_le_bytes());
            let (data, tail) = tail.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
            let (checksum, tail) = tail.split_at(4);
            assert_eq!(checksum, reference_checksum(data).to_le_bytes());
            events.push(Event::decode(data).unwrap());
            rest = tail;
        }
        events
    }

    /// CRC-32C computed bit by bit from its polynomial, masked.
    fn reference_checksum(bytes: &[u8]) -> u32 {
        let mut crc = !0u32;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            }
        }
        masked(!crc)
    }

    #[test]
    fn checksums_match_the_standard_test_vector() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(reference_checksum(b"123456789"), 0xc78a_b0e5);
    }

    #[test]
    fn records_read_back_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = Events::create(folder.path(), 40).unwrap();
        events.scalars(50, &[("loss/total".into(), 0.5), ("schedule".into(), -2.0)]).unwrap();
        let picture = RgbImage::from_fn(5, 3, |x, y| image::Rgb([x as u8, y as u8, 9]));
        events.picture(60, "clips", &picture).unwrap();
        let read = read(&events.path);
        assert_eq!(read[0].payload, Some(Payload::FileVersion("brain.Event:2".into())));
        assert!(read[0].wall_time > 1e9);
        assert_eq!(read[1].step, 41, "steps up to 40 stay valid");
        assert_eq!(read[1].payload, Some(Payload::SessionLog(SessionLog { status: START })));
        let Some(Payload::Summary(scalars)) = &read[2].payload else { panic!("{:?}", read[2]) };
        let named: Vec<_> = scalars.value.iter().map(|v| (v.tag.as_str(), v.content.clone())).collect();
        let scalar = |value| Some(Content::Scalar(value));
        assert_eq!(named, [("loss/total", scalar(0.5)), ("schedule", scalar(-2.0))]);
        let Some(Payload::Summary(pictures)) = &read[3].payload else { panic!("{:?}", read[3]) };
        let Some(Content::Image(image)) = &pictures.value[0].content else { panic!("no picture") };
        assert_eq!((image.width, image.height, image.colorspace), (5, 3, 3));
        assert_eq!(image::load_from_memory(&image.png).unwrap().into_rgb8(), picture);
        assert_eq!((read[3].step, pictures.value[0].tag.as_str()), (60, "clips"));
        assert_eq!(read.len(), 4);
    }

    #[test]
    fn every_session_has_its_own_file_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<_> = (0..3).map(|_| Events::create(folder.path(), 0).unwrap().path).collect();
        assert!(paths.is_sorted() && paths[0] != paths[1] && paths[1] != paths[2]);
        assert!(paths.iter().all(|path| path.to_str().unwrap().contains("tfevents")));
        assert_eq!(read(&paths[2])[1].step, 1, "a new run invalidates all earlier steps");
    }
}
