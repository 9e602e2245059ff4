//! Weights files: `.safetensors`, with the network's configuration in the metadata.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use tch::{Device, Kind, Tensor, nn};

use super::Config;
use crate::{Error, Result};

/// The version of the layout of names and metadata.
pub const FORMAT: &str = "1";

/// A weights file in memory, its tensors in float32 on the CPU.
#[derive(Debug)]
pub struct Weights {
    origin: PathBuf,
    config: Config,
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, Tensor>,
}

/// The built-in lite model.
const BUILT_IN: &[u8] = include_bytes!("../../models/lite.safetensors");

impl Weights {
    /// The built-in lite model.
    pub fn built_in() -> Result<Self> {
        Self::from_bytes(BUILT_IN, Path::new("(built-in model)"))
    }

    pub fn open(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Self::from_bytes(&bytes, path)
    }

    /// `origin` is what messages call the file.
    pub fn from_bytes(bytes: &[u8], origin: &Path) -> Result<Self> {
        let refuse = |reason: String| Error::Weights { path: origin.to_owned(), reason };
        let (_, header) = SafeTensors::read_metadata(bytes)
            .map_err(|error| refuse(format!("not a complete safetensors file ({error})")))?;
        let metadata: BTreeMap<String, String> =
            header.metadata().clone().unwrap_or_default().into_iter().collect();
        let config = metadata
            .get("config")
            .ok_or_else(|| refuse("no network configuration in its metadata".into()))?;
        let config: Config = serde_json::from_str(config)
            .map_err(|error| refuse(format!("network configuration: {error}")))?;
        config.validate().map_err(|error| refuse(error.to_string()))?;
        let file = SafeTensors::deserialize(bytes)
            .map_err(|error| refuse(format!("not a complete safetensors file ({error})")))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            let kind = match view.dtype() {
                safetensors::Dtype::F32 => Kind::Float,
                safetensors::Dtype::F16 => Kind::Half,
                safetensors::Dtype::BF16 => Kind::BFloat16,
                other => return Err(refuse(format!("tensor {name} is {other:?}, not a float"))),
            };
            let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
            let tensor = Tensor::f_from_data_size(view.data(), &shape, kind)?;
            tensors.insert(name.to_owned(), tensor.f_to_kind(Kind::Float)?);
        }
        Ok(Self { origin: origin.to_owned(), config, metadata, tensors })
    }

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

    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Copies every tensor into the variable of its name; the two sets must be the same.
    pub fn fill(&self, store: &nn::VarStore) -> Result<()> {
        let refuse = |reason: String| Error::Weights { path: self.origin.clone(), reason };
        let variables: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
        for (name, variable) in &variables {
            let tensor = self.tensors.get(name).ok_or_else(|| refuse(format!("tensor {name} is missing")))?;
            if tensor.size() != variable.size() {
                return Err(refuse(format!(
                    "tensor {name} is {:?}, expected {:?}",
                    tensor.size(),
                    variable.size()
                )));
            }
            tch::no_grad(|| variable.shallow_clone().f_copy_(tensor).map(|_| ()))?;
        }
        match self.tensors.keys().find(|name| !variables.contains_key(*name)) {
            Some(name) => Err(refuse(format!("tensor {name} does not belong to the network"))),
            None => Ok(()),
        }
    }
}

/// Fills every variable under `prefix` with the tensor of its name without the prefix; the file may
/// hold more.
pub fn load_backbone(path: &Path, store: &nn::VarStore, prefix: &str) -> Result<()> {
    let refuse = |reason: String| Error::Weights { path: path.to_owned(), reason };
    let backbone: BTreeMap<String, Tensor> = Tensor::read_safetensors(path)
        .map_err(|error| refuse(error.to_string().lines().next().unwrap_or_default().to_owned()))?
        .into_iter()
        .collect();
    for (name, mut variable) in store.variables() {
        let Some(name) = name.strip_prefix(prefix) else { continue };
        let tensor = backbone
            .get(name)
            .filter(|tensor| tensor.size() == variable.size())
            .ok_or_else(|| refuse(format!("no tensor {name} of shape {:?}", variable.size())))?;
        tch::no_grad(|| variable.f_copy_(tensor).map(|_| ()))?;
    }
    Ok(())
}

/// Writes the variables of a network, in `kind`, with its configuration and further metadata.
pub fn save(
    path: &Path,
    store: &nn::VarStore,
    config: &Config,
    metadata: &BTreeMap<String, String>,
    kind: Kind,
) -> Result<()> {
    let dtype = match kind {
        Kind::Half => safetensors::Dtype::F16,
        Kind::BFloat16 => safetensors::Dtype::BF16,
        _ => safetensors::Dtype::F32,
    };
    let mut buffers: BTreeMap<String, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for (name, variable) in store.variables() {
        let tensor = variable.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(kind)?.f_contiguous()?;
        let elements = tensor.numel();
        let mut bytes = vec![0; elements * kind.elt_size_in_bytes()];
        tensor.f_copy_data_u8(&mut bytes, elements)?;
        let shape = tensor.size().iter().map(|&side| side as usize).collect();
        buffers.insert(name, (shape, bytes));
    }
    let refuse = |reason: String| Error::Weights { path: path.to_owned(), reason };
    let views = buffers
        .iter()
        .map(|(name, (shape, bytes))| {
            safetensors::tensor::TensorView::new(dtype, shape.clone(), bytes)
                .map(|view| (name.as_str(), view))
                .map_err(|error| refuse(error.to_string()))
        })
        .collect::<Result<Vec<_>>>()?;
    let json = serde_json::to_string(config).map_err(|error| refuse(error.to_string()))?;
    let mut all = metadata.clone();
    all.insert("format".into(), FORMAT.into());
    all.insert("config".into(), json);
    let bytes = safetensors::serialize(views, Some(all.into_iter().collect()))
        .map_err(|error| refuse(error.to_string()))?;
    let partial = path.with_extension("safetensors.partial");
    let write = |source| Error::Write { path: path.to_owned(), source };
    std::fs::write(&partial, bytes).map_err(write)?;
    std::fs::rename(&partial, path).map_err(write)
}
