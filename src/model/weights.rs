//! Weights files: `.safetensors` with the network's configuration in their metadata.
//!
//! The metadata of a file (string to string) are
//!
//! | key | value |
//! |---|---|
//! | `format` | the version of all this, `1` |
//! | `architecture` | `lite` or `resnet50` |
//! | `config` | the whole [`Config`] as JSON |
//! | `training_data` | what the weights were made from |
//! | `licence` | under which terms they may be used |
//!
//! of which `format` and `config` are required, and whatever else is worth keeping. Tensors are
//! named as in the network's variable store and may be F32, F16 or BF16; the network gets float32.
//! Nothing that a file says of itself is believed before it has been compared with the file's true
//! size and with the network.

use std::collections::{BTreeMap, BTreeSet};
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

/// The version of the layout of names and metadata.
pub const FORMAT: &str = "1";

const ARCHITECTURES: [Architecture; 2] = [Architecture::Lite, Architecture::Resnet50];

/// A safetensors file in memory whose layout has been checked; tensors are made of it one by one.
#[derive(Debug)]
struct Container {
    origin: PathBuf,
    bytes: Vec<u8>,
    /// Where the tensors' bytes begin.
    start: usize,
    header: Header,
}

/// A weights file in memory, its layout and configuration checked.
#[derive(Debug)]
pub struct Weights {
    container: Container,
    config: Config,
    metadata: BTreeMap<String, String>,
}

/// The built-in lite model.
const BUILT_IN: &[u8] = include_bytes!("../../models/lite.safetensors");

impl Weights {
    /// The built-in lite model.
    pub fn built_in() -> Result<Self> {
        Self::from_bytes(BUILT_IN, Path::new("(built-in model)"))
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// [`Error::Read`] when it cannot be read; [`Error::Weights`] when it is not a regular file, is
    /// larger than [`MAX_BYTES`], truncated, longer than its header says, not safetensors, of
    /// something else, of a newer format or an unknown architecture, or when no network can be
    /// built from its configuration.
    pub fn open(path: &Path) -> Result<Self> {
        Self::new(Container::open(path)?)
    }

    /// The same from memory; messages call it `origin`.
    ///
    /// # Errors
    /// [`Error::Weights`] as [`open`](Self::open).
    pub fn from_bytes(bytes: &[u8], origin: &Path) -> Result<Self> {
        Self::new(Container::new(origin, bytes.to_vec())?)
    }

    /// The variables of a network as they are now, in memory: what [`open`](Self::open) would read if
    /// [`save`] had written them.
    ///
    /// # Errors
    /// Those of [`save`], but for writing.
    pub fn of_store(
        store: &VarStore,
        config: &Config,
        metadata: &BTreeMap<String, String>,
        kind: Kind,
    ) -> Result<Self> {
        let origin = Path::new("(network in memory)");
        Self::new(Container::new(origin, encode(origin, store, config, metadata, kind)?)?)
    }

    fn new(container: Container) -> Result<Self> {
        let metadata: BTreeMap<String, String> =
            container.header.metadata().clone().unwrap_or_default().into_iter().collect();
        let config = read_config(&metadata).map_err(|reason| refuse(&container.origin, reason))?;
        container.check_amount(&config)?;
        Ok(Self { container, config, metadata })
    }

    /// The network's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Changes what may differ between training and use, such as the network size or the memory.
    ///
    /// # Errors
    /// [`Error::Config`] if no network can be built from the result.
    pub fn reconfigure(&mut self, change: impl FnOnce(&mut Config)) -> Result<()> {
        change(&mut self.config);
        self.config.validate()
    }

    /// Everything in the table above, as it stands in the file.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Copies every tensor into the variable of its name; the two sets must be the same.
    ///
    /// # Errors
    /// [`Error::Weights`] naming the first tensor, in alphabetical order, that is missing,
    /// unexpected, of another shape, of a type that is not a float or not finite; the store is then
    /// as it was.
    pub fn fill(&self, store: &VarStore) -> Result<()> {
        self.container.fill(store)
    }
}

/// The error is the reason alone.
fn read_config(metadata: &BTreeMap<String, String>) -> Result<Config, String> {
    let config = metadata.get("config").ok_or(
        "there is no network configuration in its metadata; it is a safetensors file of something else",
    )?;
    let format = metadata.get("format").map_or("", String::as_str);
    if format != FORMAT {
        return Err(format!("it is of format {format:?}; this build reads {FORMAT:?}"));
    }
    let wrong = |error: serde_json::Error| format!("network configuration in its metadata: {error}");
    let fields: serde_json::Value = serde_json::from_str(config).map_err(wrong)?;
    let stated = metadata.get("architecture").map(String::as_str);
    for name in [fields["architecture"].as_str(), stated].into_iter().flatten() {
        if !ARCHITECTURES.iter().any(|architecture| architecture_name(*architecture) == name) {
            let known = ARCHITECTURES.map(architecture_name).join(" and ");
            return Err(format!("architecture {name:?} is unknown; this build has {known}"));
        }
    }
    let config: Config = serde_json::from_value(fields).map_err(wrong)?;
    let name = architecture_name(config.architecture);
    if let Some(stated) = stated.filter(|stated| *stated != name) {
        return Err(format!("its metadata say architecture {stated}, its configuration says {name}"));
    }
    config.validate().map_err(|error| error.to_string())?;
    Ok(config)
}

fn architecture_name(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Lite => "lite",
        Architecture::Resnet50 => "resnet50",
    }
}

impl Container {
    fn open(path: &Path) -> Result<Self> {
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
        Self::new(path, bytes)
    }

    fn new(origin: &Path, bytes: Vec<u8>) -> Result<Self> {
        let (length, header) =
            SafeTensors::read_metadata(&bytes).map_err(|error| refuse(origin, explain(&bytes, &error)))?;
        Ok(Self { origin: origin.to_owned(), bytes, start: size_of::<u64>() + length, header })
    }

    /// Whether there can be enough in the file for its network, before anyone builds that: up to full width
    /// any network is small, beyond it a few bytes could ask for gigabytes.
    fn check_amount(&self, config: &Config) -> Result<()> {
        if config.width <= 1.0 {
            return Ok(());
        }
        let found: u64 =
            self.header.tensors().values().map(|tensor| tensor.shape.iter().product::<usize>() as u64).sum();
        let least = config.least_parameters();
        if found < least {
            return Err(refuse(
                &self.origin,
                format!(
                    "its tensors hold {found} values, and a network of width {} has more than {least}",
                    config.width
                ),
            ));
        }
        Ok(())
    }

    fn fill(&self, store: &VarStore) -> Result<()> {
        let tensors = self.header.tensors();
        let variables: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
        let names: BTreeSet<&String> = tensors.keys().chain(variables.keys()).collect();
        for name in names {
            match (tensors.get(name), variables.get(name)) {
                (Some(tensor), Some(variable)) => self.check(name, tensor, variable)?,
                (None, Some(variable)) => {
                    let shape = variable.size();
                    return Err(refuse(
                        &self.origin,
                        format!("tensor `{name}` is missing; expected shape {shape:?}"),
                    ));
                }
                (Some(tensor), None) => {
                    return Err(refuse(
                        &self.origin,
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

    fn fill_partly(&self, store: &VarStore, prefix: &str) -> Result<Partial> {
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
                &self.origin,
                format!("tensor `{name}`: expected shape {expected:?}, found {:?}", tensor.shape),
            ));
        }
        match kind(tensor.dtype) {
            Some(_) => Ok(()),
            None => Err(refuse(
                &self.origin,
                format!("tensor `{name}`: expected type F32, F16 or BF16, found {}", tensor.dtype),
            )),
        }
    }

    /// A tensor in float32. After [`check`](Self::check).
    fn value(&self, name: &str, tensor: &TensorInfo) -> Result<Tensor> {
        let (from, to) = tensor.data_offsets;
        let bytes = self.bytes.get(self.start + from..self.start + to);
        let (Some(bytes), Some(kind)) = (bytes, kind(tensor.dtype)) else {
            return Err(refuse(&self.origin, format!("tensor `{name}` lies outside the file")));
        };
        let shape: Vec<i64> = tensor.shape.iter().map(|side| *side as i64).collect();
        let value = Tensor::f_from_data_size(bytes, &shape, kind)?.f_to_kind(Kind::Float)?;
        if !all_finite(&value)? {
            return Err(refuse(&self.origin, format!("tensor `{name}` holds values that are not finite")));
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
/// As [`Weights::open`] for the file itself, and [`Error::Weights`] naming the first tensor that has
/// a variable's name and another shape, no float type or values that are not finite; the store is
/// then as it was.
pub fn load_partial(path: &Path, store: &VarStore, prefix: &str) -> Result<Partial> {
    Container::open(path)?.fill_partly(store, prefix)
}

/// As [`load_partial`], but every variable under `prefix` must be found.
///
/// # Errors
/// As [`load_partial`], and [`Error::Weights`] naming the first tensor that is missing.
pub fn load_backbone(path: &Path, store: &VarStore, prefix: &str) -> Result<()> {
    match load_partial(path, store, prefix)?.missing.first() {
        Some(name) => Err(refuse(path, format!("there is no tensor for {name}; it is another backbone's"))),
        None => Ok(()),
    }
}

/// Writes the variables of a network as `kind` (float32, float16 or bfloat16) with its configuration
/// and further metadata. The file appears under its name when it is complete and not before.
///
/// # Errors
/// [`Error::Write`] when it cannot be written; [`Error::Weights`] on a value that is not finite in
/// `kind`, naming the tensor, or on another kind.
pub fn save(
    path: &Path,
    store: &VarStore,
    config: &Config,
    metadata: &BTreeMap<String, String>,
    kind: Kind,
) -> Result<()> {
    let bytes = encode(path, store, config, metadata, kind)?;
    write_atomically(path, &bytes).map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// The bytes of a weights file; messages call it `path`.
fn encode(
    path: &Path,
    store: &VarStore,
    config: &Config,
    metadata: &BTreeMap<String, String>,
    kind: Kind,
) -> Result<Vec<u8>> {
    let dtype = match kind {
        Kind::Float => Dtype::F32,
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::BF16,
        _ => return Err(refuse(path, "weights are written as float32, float16 or bfloat16 only")),
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
    let json = serde_json::to_string(config).map_err(|error| refuse(path, error.to_string()))?;
    let mut all = metadata.clone();
    all.insert("format".into(), FORMAT.into());
    all.insert("architecture".into(), architecture_name(config.architecture).into());
    all.insert("config".into(), json);
    safetensors::serialize(views, Some(all.into_iter().collect())).map_err(invalid)
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
        fs::rename(&part, path)?;
        // The new name is on the disk when the folder is.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if cfg!(unix) { File::open(folder.unwrap_or(Path::new(".")))?.sync_all() } else { Ok(()) }
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

/// One pass: infinities and NaN survive a sum, and a double holds the sum of any finite float32s.
fn all_finite(x: &Tensor) -> Result<bool> {
    Ok(x.f_sum(Kind::Double)?.f_double_value(&[])?.is_finite())
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
