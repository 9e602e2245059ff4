//! Weights files: `.safetensors` with the network's configuration in their metadata.
//!
//! The metadata of a file (string to string) are
//!
//! | key | value |
//! |---|---|
//! | `format` | `fastganseg` |
//! | `format_version` | `1` |
//! | `architecture` | `resnet50` or `lite` |
//! | `config` | the whole [`Config`] as JSON |
//! | `training_data` | what the weights were made from |
//! | `licence` | under which terms they may be used |
//!
//! and whatever else is worth keeping. Tensors are named as in the network's variable store and may
//! be F32, F16 or BF16; the network gets float32. Nothing that a file says of itself is believed
//! before it has been compared with the file's true size and with the network.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata as Header, SafeTensors, TensorInfo, TensorView};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use super::config::{Architecture, Config};
use crate::{Error, Result};

/// Larger files are refused before they are read.
pub const MAX_BYTES: u64 = 2 << 30;

const FORMAT: &str = "fastganseg";
const FORMAT_VERSION: u32 = 1;

/// What a weights file says beside its tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct Info {
    pub config: Config,
    /// What the weights were made from, one line.
    pub training_data: String,
    /// SPDX expression or a sentence.
    pub licence: String,
    /// Anything else.
    pub extra: BTreeMap<String, String>,
}

impl Info {
    fn to_metadata(&self) -> Result<HashMap<String, String>> {
        let json = |e: serde_json::Error| Error::Config(e.to_string());
        let config = serde_json::to_string(&self.config).map_err(json)?;
        let mut metadata: HashMap<String, String> =
            self.extra.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        for (key, value) in [
            ("format", FORMAT.to_owned()),
            ("format_version", FORMAT_VERSION.to_string()),
            ("architecture", architecture_name(self.config.architecture).to_owned()),
            ("config", config),
            ("training_data", self.training_data.clone()),
            ("licence", self.licence.clone()),
        ] {
            metadata.insert(key.to_owned(), value);
        }
        Ok(metadata)
    }

    /// The error is the reason alone.
    fn from_metadata(metadata: &HashMap<String, String>) -> Result<Self, String> {
        let mut extra: BTreeMap<String, String> =
            metadata.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let mut take = |key: &str| extra.remove(key);
        if take("format").as_deref() != Some(FORMAT) {
            return Err(
                "its metadata do not say `format: fastganseg`; it is a weights file of something else".into(),
            );
        }
        let version = take("format_version").unwrap_or_default();
        if version != FORMAT_VERSION.to_string() {
            return Err(format!("format version {version:?}; this build reads version {FORMAT_VERSION}"));
        }
        let architecture = take("architecture").unwrap_or_default();
        let known = [Architecture::Lite, Architecture::Resnet50].map(architecture_name);
        if !known.contains(&architecture.as_str()) {
            return Err(format!(
                "architecture {architecture:?} is unknown; this build has {}",
                known.join(" and ")
            ));
        }
        let config = take("config").ok_or("its metadata lack `config`")?;
        let config: Config =
            serde_json::from_str(&config).map_err(|e| format!("`config` in its metadata: {e}"))?;
        if architecture_name(config.architecture) != architecture {
            return Err(format!(
                "its metadata say architecture {architecture} and, in `config`, {}",
                architecture_name(config.architecture)
            ));
        }
        config.validate().map_err(|e| e.to_string())?;
        let training_data = take("training_data").unwrap_or_default();
        let licence = take("licence").unwrap_or_default();
        Ok(Self { config, training_data, licence, extra })
    }
}

fn architecture_name(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Lite => "lite",
        Architecture::Resnet50 => "resnet50",
    }
}

/// A weights file in memory whose layout has been checked; tensors are made of it one by one.
#[derive(Debug)]
pub struct Weights<'a> {
    path: PathBuf,
    bytes: Cow<'a, [u8]>,
    /// Where the tensors' bytes begin.
    start: usize,
    header: Header,
}

impl Weights<'static> {
    /// Reads a whole file.
    ///
    /// # Errors
    /// [`Error::Read`] when it cannot be read; [`Error::Weights`] when it is not a regular file, is
    /// larger than [`MAX_BYTES`], truncated, longer than its header says, or not safetensors.
    pub fn open(path: &Path) -> Result<Self> {
        let read_error = |source| Error::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read_error)?;
        let metadata = file.metadata().map_err(read_error)?;
        if !metadata.is_file() {
            return Err(refuse(path, "it is not a regular file"));
        }
        if metadata.len() > MAX_BYTES {
            return Err(refuse(
                path,
                format!("it is oversized: {} bytes, {MAX_BYTES} at most", metadata.len()),
            ));
        }
        let mut bytes = Vec::with_capacity(metadata.len() as usize);
        file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(read_error)?;
        Self::new(path, Cow::Owned(bytes))
    }
}

impl<'a> Weights<'a> {
    /// The same from memory; errors call it `name`.
    ///
    /// # Errors
    /// [`Error::Weights`] as [`open`](Weights::open).
    pub fn from_bytes(bytes: &'a [u8], name: &str) -> Result<Self> {
        Self::new(Path::new(name), Cow::Borrowed(bytes))
    }

    fn new(path: &Path, bytes: Cow<'a, [u8]>) -> Result<Self> {
        let (length, header) =
            SafeTensors::read_metadata(&bytes).map_err(|error| refuse(path, explain(&bytes, &error)))?;
        Ok(Self { path: path.to_owned(), bytes, start: size_of::<u64>() + length, header })
    }

    /// Configuration, licence and so on.
    ///
    /// # Errors
    /// [`Error::Weights`] when the file is of another program, of a newer format, of an unknown
    /// architecture, or its configuration builds no network.
    pub fn info(&self) -> Result<Info> {
        let none = HashMap::new();
        Info::from_metadata(self.header.metadata().as_ref().unwrap_or(&none))
            .map_err(|reason| refuse(&self.path, reason))
    }

    /// Copies every tensor into the variable of the same name.
    ///
    /// # Errors
    /// [`Error::Weights`] naming the first tensor, in alphabetical order, that is missing,
    /// unexpected, of another shape, of a type that is not a float or not finite; the store is then as
    /// it was.
    pub fn load(&self, store: &VarStore) -> Result<()> {
        let tensors = self.header.tensors();
        let variables: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
        let names: BTreeSet<&String> = tensors.keys().chain(variables.keys()).collect();
        for name in names {
            match (tensors.get(name), variables.get(name)) {
                (Some(tensor), Some(variable)) => self.check(name, tensor, variable)?,
                (None, Some(variable)) => {
                    let shape = variable.size();
                    return Err(refuse(
                        &self.path,
                        format!("tensor `{name}` is missing; expected shape {shape:?}"),
                    ));
                }
                (Some(tensor), None) => {
                    return Err(refuse(
                        &self.path,
                        format!(
                            "unexpected tensor `{name}` of shape {:?}; the network has none of that name",
                            tensor.shape
                        ),
                    ));
                }
                (None, None) => {}
            }
        }
        let mut values = Vec::with_capacity(variables.len());
        for (name, variable) in variables {
            let value = self.value(&name, tensors[&name])?;
            values.push((variable, value));
        }
        copy(values)
    }

    fn load_matching(&self, store: &VarStore, prefix: &str) -> Result<Partial> {
        let tensors: BTreeMap<String, &TensorInfo> = self.header.tensors().into_iter().collect();
        let under = format!("{prefix}.");
        let mut variables: BTreeMap<String, Tensor> =
            store.variables().into_iter().filter(|(name, _)| name.starts_with(&under)).collect();
        let mut found = Vec::new();
        let mut report = Partial::default();
        for (name, tensor) in tensors {
            match variables.remove(&format!("{under}{name}")) {
                Some(variable) => {
                    self.check(&name, tensor, &variable)?;
                    found.push((name, tensor, variable));
                }
                None => report.unused.push(name),
            }
        }
        let mut values = Vec::with_capacity(found.len());
        for (name, tensor, variable) in found {
            values.push((variable, self.value(&name, tensor)?));
            report.loaded.push(format!("{under}{name}"));
        }
        report.missing = variables.into_keys().collect();
        copy(values)?;
        Ok(report)
    }

    fn check(&self, name: &str, tensor: &TensorInfo, variable: &Tensor) -> Result<()> {
        let expected = variable.size();
        let same = tensor.shape.len() == expected.len()
            && tensor.shape.iter().zip(&expected).all(|(a, b)| i64::try_from(*a) == Ok(*b));
        if !same {
            return Err(refuse(
                &self.path,
                format!("tensor `{name}`: expected shape {expected:?}, found {:?}", tensor.shape),
            ));
        }
        match kind(tensor.dtype) {
            Some(_) => Ok(()),
            None => Err(refuse(
                &self.path,
                format!("tensor `{name}`: expected type F32, F16 or BF16, found {}", tensor.dtype),
            )),
        }
    }

    /// A tensor in float32. After [`check`](Self::check).
    fn value(&self, name: &str, tensor: &TensorInfo) -> Result<Tensor> {
        let (from, to) = tensor.data_offsets;
        let bytes = self.bytes.get(self.start + from..self.start + to);
        let (Some(bytes), Some(kind)) = (bytes, kind(tensor.dtype)) else {
            return Err(refuse(&self.path, format!("tensor `{name}` lies outside the file")));
        };
        let shape: Vec<i64> = tensor.shape.iter().map(|side| *side as i64).collect();
        let value = Tensor::f_from_data_size(bytes, &shape, kind)?.f_to_kind(Kind::Float)?;
        if !all_finite(&value)? {
            return Err(refuse(&self.path, format!("tensor `{name}` holds values that are not finite")));
        }
        Ok(value)
    }
}

fn copy(values: Vec<(Tensor, Tensor)>) -> Result<()> {
    let _guard = tch::no_grad_guard();
    for (mut variable, value) in values {
        variable.f_copy_(&value)?;
    }
    Ok(())
}

/// What came of loading a file that holds a part of a network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Partial {
    /// Variables of the network that were found.
    pub loaded: Vec<String>,
    /// Variables under the prefix that were not; they stay as they were.
    pub missing: Vec<String>,
    /// Tensors of the file that the network has no use for.
    pub unused: Vec<String>,
}

/// Initialises the variables under `prefix` from a file without the prefix, such as torchvision's
/// ResNet-50 for the `encoder`. For training alone; no metadata are asked for.
///
/// # Errors
/// As [`Weights::open`], and [`Error::Weights`] naming the first tensor that has a variable's name
/// and another shape, no float type or values that are not finite; the store is then as it was.
pub fn load_partial(path: &Path, store: &VarStore, prefix: &str) -> Result<Partial> {
    Weights::open(path)?.load_matching(store, prefix)
}

/// Writes every variable of the store as `kind` (float32, float16 or bfloat16). The file appears
/// under its name when it is complete and not before.
///
/// # Errors
/// [`Error::Write`] when it cannot be written; [`Error::Weights`] on a value that is not finite in
/// `kind`, naming the tensor, or on another kind.
pub fn save(path: &Path, store: &VarStore, info: &Info, kind: Kind) -> Result<()> {
    let dtype = match kind {
        Kind::Float => Dtype::F32,
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::BF16,
        other => return Err(refuse(path, format!("weights are not written as {other:?}"))),
    };
    let mut tensors = Vec::new();
    for (name, variable) in store.variables().into_iter().collect::<BTreeMap<_, _>>() {
        let value = variable.f_detach()?.f_to_kind(kind)?.f_to_device(Device::Cpu)?.f_contiguous()?;
        if !all_finite(&value)? {
            return Err(refuse(path, format!("tensor `{name}` holds values that are not finite as {dtype}")));
        }
        let mut bytes = vec![0; value.numel() * kind.elt_size_in_bytes()];
        value.f_copy_data_u8(&mut bytes, value.numel())?;
        let shape: Vec<usize> = value.size().iter().map(|side| *side as usize).collect();
        tensors.push((name, shape, bytes));
    }
    let invalid = |error: safetensors::SafeTensorError| refuse(path, error.to_string());
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((name, TensorView::new(dtype, shape.clone(), bytes)?)))
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(invalid)?;
    let bytes = safetensors::serialize(views, Some(info.to_metadata()?)).map_err(invalid)?;
    write_atomically(path, &bytes).map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// Writes a file beside `path`, then renames it.
fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(hidden);
    let written = (|| {
        let mut file = File::create(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, path)
    })();
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&part);
    }
    written
}

fn refuse(path: &Path, reason: impl Into<String>) -> Error {
    Error::Weights { path: path.to_owned(), reason: reason.into() }
}

fn kind(dtype: Dtype) -> Option<Kind> {
    match dtype {
        Dtype::F32 => Some(Kind::Float),
        Dtype::F16 => Some(Kind::Half),
        Dtype::BF16 => Some(Kind::BFloat16),
        _ => None,
    }
}

fn all_finite(x: &Tensor) -> Result<bool> {
    Ok(x.f_isfinite()?.f_all()?.f_int64_value(&[])? != 0)
}

/// Why these bytes are no safetensors file, in words that help.
fn explain(bytes: &[u8], error: &safetensors::SafeTensorError) -> String {
    use safetensors::SafeTensorError::{
        HeaderTooLarge, HeaderTooSmall, InvalidHeader, InvalidHeaderDeserialization, InvalidHeaderLength,
        MetadataIncompleteBuffer,
    };
    let remedy = "give a .safetensors file written by fastganseg-train";
    match error {
        HeaderTooSmall => format!("it is truncated: {} bytes are no header", bytes.len()),
        MetadataIncompleteBuffer => match announced(bytes) {
            Some(size) if size > bytes.len() => {
                format!("it is truncated: {} bytes of the {size} that its header announces", bytes.len())
            }
            Some(size) => {
                format!("it is oversized: {} bytes, its header announces {size}", bytes.len())
            }
            None => error.to_string(),
        },
        // Whatever comes first in the file of another kind is read as the header's length. A true
        // header begins with a brace.
        InvalidHeaderLength if bytes.get(8) == Some(&b'{') => {
            format!("it is truncated: {} bytes end within its header", bytes.len())
        }
        InvalidHeader(_) | InvalidHeaderDeserialization(_) | HeaderTooLarge | InvalidHeaderLength => {
            format!("it is not a safetensors file ({error}); {remedy}")
        }
        _ => format!("its header is wrong: {error}"),
    }
}

/// The size in bytes that a well-formed header gives its file.
fn announced(bytes: &[u8]) -> Option<usize> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let header: Header = serde_json::from_slice(rest.get(..length)?).ok()?;
    header.data_len().checked_add(8)?.checked_add(length)
}

#[cfg(test)]
mod tests;
