// SPDX-License-Identifier: MPL-2.0

//! Weights files: `.safetensors` with the network configuration in the metadata.
//!
//! Metadata (string to string):
//!
//! | key | value |
//! |---|---|
//! | `format` | version of this layout, `1` |
//! | `architecture` | `lite` or `resnet50` |
//! | `config` | the whole [`Config`] as JSON |
//! | `training_data` | training data of the weights |
//! | `licence` | licence of the weights |
//!
//! `format` and `config` are required; further keys are allowed. Tensors are named as in the network's variable
//! store and may be F32, F16, BF16 or I8; they are converted to float32. Those of I8 are multiplied with the tensor
//! `<name>.scale` (outputs), F32, one factor for each output channel. Sizes and shapes stated in a file are checked
//! against its actual size and the network before they are used.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata as Header, SafeTensors, TensorInfo, TensorView};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use super::config::{Architecture, Config};
use crate::{Error, Result};

/// Maximum file size in bytes; larger files are refused before they are read.
pub const MAX_BYTES: u64 = 2 << 30;

/// Ending of the name of a tensor with the scales of an I8 tensor.
const SCALE: &str = ".scale";
/// The largest value of an I8 tensor; the smallest is its negative.
const MAX_INT8: f64 = 127.0;

/// Version of the layout of names and metadata.
pub const FORMAT: &str = "1";

const ARCHITECTURES: [Architecture; 2] = [Architecture::Lite, Architecture::Resnet50];

/// Safetensors file in memory with a checked layout. Tensors are created from it one at a time.
#[derive(Debug)]
struct Container {
    origin: PathBuf,
    bytes: Vec<u8>,
    /// Offset of the tensor data.
    start: usize,
    header: Header,
}

/// Weights file in memory with a checked layout and configuration.
#[derive(Debug)]
pub struct Weights {
    container: Container,
    config: Config,
    metadata: BTreeMap<String, String>,
}

/// The built-in models by name, the default first.
const BUILT_IN: [(&str, &[u8]); 2] = [
    (LITE, include_bytes!("../../models/lite.safetensors")),
    (LARGE, include_bytes!("../../models/large.safetensors")),
];

/// Name of the built-in model for CPUs.
pub const LITE: &str = "lite";
/// Name of the built-in model for GPUs, and for CPUs where quality matters more than time.
pub const LARGE: &str = "large";

/// Whether `model` is the name of a built-in model.
pub fn is_built_in(model: &Path) -> bool {
    BUILT_IN.iter().any(|(name, _)| model == Path::new(name))
}

impl Weights {
    /// Returns the weights of the built-in model [`LITE`].
    pub fn built_in() -> Result<Self> {
        Self::of_model(Path::new(LITE))
    }

    /// Returns the weights of a model: [`LITE`], [`LARGE`], or a file.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn of_model(model: &Path) -> Result<Self> {
        match BUILT_IN.iter().find(|(name, _)| model == Path::new(name)) {
            Some((name, bytes)) => Self::from_bytes(bytes, Path::new(&format!("(built-in model {name})"))),
            None => Self::open(model).map_err(|error| match error {
                Error::Read { path, source } if source.kind() == io::ErrorKind::NotFound => {
                    let source = format!("{source}; the built-in models are {LITE} and {LARGE}");
                    Error::Read { path, source: io::Error::new(io::ErrorKind::NotFound, source) }
                }
                error => error,
            }),
        }
    }

    /// Reads a weights file.
    ///
    /// # Errors
    /// [`Error::Read`] if it cannot be read. [`Error::Weights`] if it is not a regular file, larger than
    /// [`MAX_BYTES`], truncated, longer than its header states, not safetensors, without a network configuration,
    /// of another format version, of an unknown architecture, or if its configuration is invalid.
    pub fn open(path: &Path) -> Result<Self> {
        Self::new(Container::open(path)?)
    }

    /// Reads a weights file from memory; error messages name it `origin`.
    ///
    /// # Errors
    /// [`Error::Weights`] as [`open`](Self::open).
    pub fn from_bytes(bytes: &[u8], origin: &Path) -> Result<Self> {
        Self::new(Container::new(origin, bytes.to_vec())?)
    }

    /// Returns the current variables of a network, as [`open`](Self::open) reads them after [`save`].
    ///
    /// # Errors
    /// Those of [`save`] except [`Error::Write`].
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

    /// Returns the network configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Changes settings that may differ between training and use, such as the input size or the memory bank.
    ///
    /// # Errors
    /// [`Error::Config`] if the result is invalid.
    pub fn reconfigure(&mut self, change: impl FnOnce(&mut Config)) -> Result<()> {
        change(&mut self.config);
        self.config.validate()
    }

    /// Returns the metadata of the file.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Copies every tensor into the variable of the same name. File and store must have the same names.
    ///
    /// # Errors
    /// [`Error::Weights`] naming the first tensor, in alphabetical order, that is missing, unexpected, of another
    /// shape or type, or not finite. The store is then unchanged.
    pub fn fill(&self, store: &VarStore) -> Result<()> {
        self.container.fill(store, &[])
    }

    /// Copies all tensors into `store`, as [`Weights::fill`] does. Tensors of the edge stage and of the refiner that the file
    /// lacks keep their values. A refiner that the network lacks is left out.
    ///
    /// # Errors
    /// As [`Weights::fill`].
    pub fn fill_without_optional_parts(&self, store: &VarStore) -> Result<()> {
        self.container.fill(store, &["decoder.edge.", "refiner."])
    }
}

/// Tensors of a weights file by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// Reads every tensor of a `.safetensors` file in memory as float32; error messages name it `origin`.
pub(super) fn read_tensors(bytes: &[u8], origin: &Path) -> Result<Tensors> {
    Ok(all_tensors(&Container::new(origin, bytes.to_vec())?)?.0)
}

/// Reads every tensor of the file `path` as float32, and its metadata.
///
/// # Errors
/// [`Error::Read`] if it cannot be read. [`Error::Weights`] if it is not safetensors, or a tensor is not F32, F16, BF16 or
/// I8, or not finite.
pub fn open_tensors(path: &Path) -> Result<(Tensors, BTreeMap<String, String>)> {
    all_tensors(&Container::open(path)?)
}

fn all_tensors(container: &Container) -> Result<(Tensors, BTreeMap<String, String>)> {
    let metadata = container.header.metadata().clone().unwrap_or_default().into_iter().collect();
    let tensors = container.tensors();
    let tensors = tensors.into_iter().map(|(name, info)| Ok((name.clone(), container.value(&name, info)?)));
    Ok((tensors.collect::<Result<_>>()?, metadata))
}

/// Returns the checked configuration, or the reason why there is none, without the file name.
fn read_config(metadata: &BTreeMap<String, String>) -> Result<Config, String> {
    let config = metadata.get("config").ok_or(
        "its metadata has no network configuration; give a .safetensors file written by fastganseg-train",
    )?;
    let format = metadata.get("format").map_or("", String::as_str);
    if format != FORMAT {
        return Err(format!("its format version is {format:?}; this build reads {FORMAT:?}"));
    }
    let invalid =
        |error: serde_json::Error| format!("invalid network configuration in its metadata: {error}");
    let fields: serde_json::Value = serde_json::from_str(config).map_err(invalid)?;
    let stated = metadata.get("architecture").map(String::as_str);
    for name in [fields["architecture"].as_str(), stated].into_iter().flatten() {
        if !ARCHITECTURES.iter().any(|architecture| architecture_name(*architecture) == name) {
            let known = ARCHITECTURES.map(architecture_name).join(" and ");
            return Err(format!("architecture {name:?} is unknown; this build has {known}"));
        }
    }
    let config: Config = serde_json::from_value(fields).map_err(invalid)?;
    let name = architecture_name(config.architecture);
    if let Some(stated) = stated.filter(|stated| *stated != name) {
        return Err(format!("its metadata states architecture {stated}, its configuration {name}"));
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
                format!("it is oversized: {} bytes, the maximum is {MAX_BYTES}", metadata.len()),
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

    fn refuse(&self, reason: impl Into<String>) -> Error {
        refuse(&self.origin, reason)
    }

    /// Checks that the file has enough values for its network. Above full width, a configuration of a few bytes
    /// could otherwise make the network allocate gigabytes.
    fn check_amount(&self, config: &Config) -> Result<()> {
        if config.width <= 1.0 {
            return Ok(());
        }
        let count: u64 =
            self.tensors().values().map(|tensor| tensor.shape.iter().product::<usize>() as u64).sum();
        let minimum = config.min_parameters();
        if count < minimum {
            return Err(self.refuse(format!(
                "its tensors hold {count} values, but a network of width {} has more than {minimum}",
                config.width
            )));
        }
        Ok(())
    }

    /// Tensors by name, without the scales of I8.
    fn tensors(&self) -> BTreeMap<String, &TensorInfo> {
        let all: BTreeMap<String, &TensorInfo> = self.header.tensors().into_iter().collect();
        let is_scale = |name: &str| {
            let scaled = name.strip_suffix(SCALE).and_then(|name| all.get(name));
            scaled.is_some_and(|tensor| tensor.dtype == Dtype::I8)
        };
        all.iter().filter(|(name, _)| !is_scale(name)).map(|(name, tensor)| (name.clone(), *tensor)).collect()
    }

    /// The file may lack the tensors whose names start with `optional`, unless it is empty.
    fn fill(&self, store: &VarStore, optional: &[&str]) -> Result<()> {
        let tensors = self.tensors();
        let mut variables: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
        let is_optional = |name: &str| optional.iter().any(|part| name.starts_with(part));
        variables.retain(|name, _| tensors.contains_key(name) || !is_optional(name));
        let names: BTreeSet<&String> = tensors.keys().chain(variables.keys()).collect();
        for name in names {
            match (tensors.get(name), variables.get(name)) {
                (Some(_), None) if !optional.is_empty() && name.starts_with("refiner.") => {}
                (Some(tensor), Some(variable)) => self.check(name, tensor, variable)?,
                (None, Some(variable)) => {
                    let shape = variable.size();
                    return Err(self.refuse(format!("tensor `{name}` is missing; expected shape {shape:?}")));
                }
                (Some(tensor), None) => {
                    return Err(self.refuse(format!(
                        "unexpected tensor `{name}` of shape {:?}; the network has no such tensor",
                        tensor.shape
                    )));
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
        let tensors = self.tensors();
        let prefix = format!("{prefix}.");
        let mut variables: BTreeMap<String, Tensor> =
            store.variables().into_iter().filter(|(name, _)| name.starts_with(&prefix)).collect();
        let mut matches = Vec::new();
        let mut partial = Partial::default();
        for (name, tensor) in tensors {
            match variables.remove(&format!("{prefix}{name}")) {
                Some(variable) => {
                    self.check(&name, tensor, &variable)?;
                    matches.push((name, tensor, variable));
                }
                None => partial.unused.push(name),
            }
        }
        let mut values = Vec::with_capacity(matches.len());
        for (name, tensor, variable) in matches {
            values.push((variable, self.value(&name, tensor)?));
            partial.loaded.push(format!("{prefix}{name}"));
        }
        partial.missing = variables.into_keys().collect();
        copy(values)?;
        Ok(partial)
    }

    fn check(&self, name: &str, tensor: &TensorInfo, variable: &Tensor) -> Result<()> {
        let refuse = |reason: String| self.refuse(format!("tensor `{name}`: {reason}"));
        let expected = variable.size();
        let same = tensor.shape.len() == expected.len()
            && tensor.shape.iter().zip(&expected).all(|(a, b)| i64::try_from(*a) == Ok(*b));
        if !same {
            return Err(refuse(format!("expected shape {expected:?}, found {:?}", tensor.shape)));
        }
        match kind(tensor.dtype) {
            Some(_) => Ok(()),
            None => Err(refuse(format!("expected type F32, F16, BF16 or I8, found {}", tensor.dtype))),
        }
    }

    /// Returns a tensor as float32; call [`check`](Self::check) first.
    fn value(&self, name: &str, tensor: &TensorInfo) -> Result<Tensor> {
        let value = self.stored(name, tensor)?;
        if tensor.dtype != Dtype::I8 {
            return Ok(value);
        }
        let scale = format!("{name}{SCALE}");
        let stated = self.header.info(&scale);
        let outputs = &tensor.shape[..tensor.shape.len().min(1)];
        let Some(stated) = stated.filter(|stated| stated.dtype == Dtype::F32 && stated.shape == outputs)
        else {
            let reason = format!(
                "tensor `{name}` of type I8 needs a tensor `{scale}` of type F32 and shape {outputs:?}"
            );
            return Err(self.refuse(reason));
        };
        let mut shape = vec![1; value.dim().max(1)];
        shape[0] = -1;
        Ok(value.f_mul(&self.stored(&scale, stated)?.f_reshape(shape)?)?)
    }

    fn stored(&self, name: &str, tensor: &TensorInfo) -> Result<Tensor> {
        let (from, to) = tensor.data_offsets;
        let bytes = self.bytes.get(self.start + from..self.start + to);
        let (Some(bytes), Some(kind)) = (bytes, kind(tensor.dtype)) else {
            return Err(self.refuse(format!("tensor `{name}` lies outside the file")));
        };
        let shape: Vec<i64> = tensor.shape.iter().map(|side| *side as i64).collect();
        let value = Tensor::f_from_data_size(bytes, &shape, kind)?.f_to_kind(Kind::Float)?;
        if !all_finite(&value)? {
            return Err(self.refuse(format!("tensor `{name}` holds values that are not finite")));
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

/// Result of loading a file that holds part of a network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Partial {
    /// Loaded variables of the network.
    pub loaded: Vec<String>,
    /// Variables under the prefix that are not in the file; they are unchanged.
    pub missing: Vec<String>,
    /// Tensors of the file without a variable in the network.
    pub unused: Vec<String>,
}

/// Initialises the variables under `prefix` from a file whose names lack the prefix, such as torchvision's
/// ResNet-50 for the `encoder`. For training only; the file needs no metadata.
///
/// # Errors
/// Those of [`Weights::open`] for the file itself. [`Error::Weights`] naming the first tensor that has a
/// variable's name but another shape, another type, or values that are not finite. The store is then unchanged.
pub fn load_partial(path: &Path, store: &VarStore, prefix: &str) -> Result<Partial> {
    Container::open(path)?.fill_partly(store, prefix)
}

/// As [`load_partial`], but every variable under `prefix` must be in the file.
///
/// # Errors
/// Those of [`load_partial`], and [`Error::Weights`] naming the first variable that is missing.
pub fn load_backbone(path: &Path, store: &VarStore, prefix: &str) -> Result<()> {
    match load_partial(path, store, prefix)?.missing.first() {
        Some(name) => Err(refuse(
            path,
            format!("it has no tensor for `{name}`; give the weights of the network's own backbone"),
        )),
        None => Ok(()),
    }
}

/// Writes the variables of a network as `kind` (float32, float16, bfloat16 or int8), with its configuration and further
/// metadata. As int8, vectors are written in float16. The write is atomic: an incomplete file never appears under `path`.
///
/// # Errors
/// [`Error::Write`] if the file cannot be written. [`Error::Weights`] on another kind, or naming the tensor if a
/// value is not finite in `kind`.
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

/// Returns the bytes of a weights file; error messages name it `path`.
fn encode(
    path: &Path,
    store: &VarStore,
    config: &Config,
    metadata: &BTreeMap<String, String>,
    kind: Kind,
) -> Result<Vec<u8>> {
    let json = serde_json::to_string(config).map_err(|error| refuse(path, error.to_string()))?;
    let mut all = metadata.clone();
    all.insert("format".into(), FORMAT.into());
    all.insert("architecture".into(), architecture_name(config.architecture).into());
    all.insert("config".into(), json);
    encode_tensors(path, store.variables().into_iter().collect(), all, kind)
}

/// Writes tensors of any network as `kind`, atomically, as [`save`].
///
/// # Errors
/// Those of [`save`].
pub fn save_tensors(
    path: &Path,
    tensors: BTreeMap<String, Tensor>,
    metadata: BTreeMap<String, String>,
    kind: Kind,
) -> Result<()> {
    let bytes = encode_tensors(path, tensors, metadata, kind)?;
    write_atomically(path, &bytes).map_err(|source| Error::Write { path: path.to_owned(), source })
}

fn encode_tensors(
    path: &Path,
    tensors: BTreeMap<String, Tensor>,
    metadata: BTreeMap<String, String>,
    kind: Kind,
) -> Result<Vec<u8>> {
    let mut values = Vec::new();
    let mut add = |name: String, value: &Tensor, kind: Kind| {
        let Some(dtype) = dtype(kind) else {
            return Err(refuse(path, "weights are written as float32, float16, bfloat16 or int8 only"));
        };
        let value = value.f_to_kind(kind)?.f_to_device(Device::Cpu)?.f_contiguous()?;
        if !all_finite(&value)? {
            return Err(refuse(path, format!("tensor `{name}` holds values that are not finite as {dtype}")));
        }
        let mut bytes = vec![0; value.numel() * kind.elt_size_in_bytes()];
        value.f_copy_data_u8(&mut bytes, value.numel())?;
        let shape: Vec<usize> = value.size().iter().map(|side| *side as usize).collect();
        values.push((name, dtype, shape, bytes));
        Ok(())
    };
    for (name, variable) in tensors {
        let value = variable.f_detach()?;
        match kind {
            Kind::Int8 if value.dim() > 1 => {
                let outputs = value.f_flatten(1, -1)?.f_to_kind(Kind::Float)?;
                let scale = outputs.f_abs()?.f_amax([1], false)?.f_div_scalar(MAX_INT8)?;
                let steps =
                    outputs.f_div(&scale.f_clamp_min(f64::from(f32::MIN_POSITIVE))?.f_unsqueeze(1)?)?;
                if !all_finite(&steps)? {
                    return Err(refuse(path, format!("tensor `{name}` holds values that are not finite")));
                }
                add(name.clone() + SCALE, &scale, Kind::Float)?;
                add(name, &steps.f_round()?.f_view_as(&value)?, kind)?;
            }
            Kind::Int8 => add(name, &value, Kind::Half)?,
            _ => add(name, &value, kind)?,
        }
    }
    let invalid = |error: safetensors::SafeTensorError| refuse(path, error.to_string());
    let views = values
        .iter()
        .map(|(name, dtype, shape, bytes)| Ok((name, TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(invalid)?;
    safetensors::serialize(views, Some(metadata.into_iter().collect())).map_err(invalid)
}

/// Writes a temporary file beside `path`, then renames it.
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
        // The rename is durable only once the folder is synced.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if cfg!(unix) { File::open(folder.unwrap_or(Path::new(".")))?.sync_all() } else { Ok(()) }
    })();
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&part);
    }
    written
}

fn refuse(path: &Path, reason: impl Into<String>) -> Error {
    Error::Weights { path: path.to_owned(), reason: reason.into() }
}

/// Number formats of a file.
const FORMATS: [(Dtype, Kind); 4] = [
    (Dtype::F32, Kind::Float),
    (Dtype::F16, Kind::Half),
    (Dtype::BF16, Kind::BFloat16),
    (Dtype::I8, Kind::Int8),
];

fn kind(dtype: Dtype) -> Option<Kind> {
    FORMATS.iter().find(|format| format.0 == dtype).map(|format| format.1)
}

fn dtype(kind: Kind) -> Option<Dtype> {
    FORMATS.iter().find(|format| format.1 == kind).map(|format| format.0)
}

/// One pass: infinities and NaN survive a sum, and a double holds the sum of any finite float32s.
fn all_finite(x: &Tensor) -> Result<bool> {
    Ok(x.f_sum(Kind::Double)?.f_double_value(&[])?.is_finite())
}

/// Describes why `bytes` are not a safetensors file.
fn explain(bytes: &[u8], error: &safetensors::SafeTensorError) -> String {
    use safetensors::SafeTensorError::{
        HeaderTooLarge, HeaderTooSmall, InvalidHeader, InvalidHeaderDeserialization, InvalidHeaderLength,
        MetadataIncompleteBuffer,
    };
    let remedy = "give a .safetensors file written by fastganseg-train";
    match error {
        HeaderTooSmall => format!("it is truncated: {} bytes do not hold a header", bytes.len()),
        MetadataIncompleteBuffer => match stated_size(bytes) {
            Some(size) if size > bytes.len() => {
                format!("it is truncated: {} bytes of the {size} that its header states", bytes.len())
            }
            Some(size) => {
                format!("it is oversized: {} bytes, its header states {size}", bytes.len())
            }
            None => error.to_string(),
        },
        // In a file of another type the first bytes are read as the header's length. A real header starts with a
        // brace.
        InvalidHeaderLength if bytes.get(8) == Some(&b'{') => {
            format!("it is truncated: {} bytes do not hold its whole header", bytes.len())
        }
        InvalidHeader(_) | InvalidHeaderDeserialization(_) | HeaderTooLarge | InvalidHeaderLength => {
            format!("it is not a safetensors file ({error}); {remedy}")
        }
        _ => format!("its header is invalid: {error}"),
    }
}

/// Returns the file size in bytes that a well-formed header states.
fn stated_size(bytes: &[u8]) -> Option<usize> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let header: Header = serde_json::from_slice(rest.get(..length)?).ok()?;
    header.data_len().checked_add(8)?.checked_add(length)
}

#[cfg(test)]
mod tests;
