// SPDX-License-Identifier: MPL-2.0

//! Remedies for errors of libtorch.

use crate::Error;

/// Messages of libtorch's allocators when memory runs out, on CUDA and on the CPU.
const OUT_OF_MEMORY: [&str; 3] = ["out of memory", "can't allocate memory", "not enough memory"];

/// Converts an out-of-memory error at `step` to [`Error::OutOfMemory`], which names the settings to lower. Returns
/// other errors unchanged.
pub fn explain_out_of_memory(error: Error, step: u64) -> Error {
    let text = match &error {
        Error::Torch(inner) => inner.to_string(),
        Error::Core(gstfastganseg::Error::Torch(message)) => message.clone(),
        _ => return error,
    };
    match text.lines().find(|line| OUT_OF_MEMORY.iter().any(|words| line.contains(words))) {
        Some(line) => Error::OutOfMemory { step, reason: line.trim().to_owned() },
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, TchError, Tensor};

    use super::*;

    #[test]
    fn out_of_memory_errors_name_the_settings_to_lower() {
        let error = Tensor::f_empty([1 << 50], (Kind::Float, Device::Cpu)).unwrap_err();
        let message = explain_out_of_memory(error.into(), 7).to_string();
        for words in ["step 7", "allocate", "data.batch", "data.size", "critics.shape.max_channels"] {
            assert!(message.contains(words), "{message}");
        }
        let cuda = TchError::Torch("CUDA out of memory. Tried to allocate 2.00 GiB.\nat ...".into());
        let message = explain_out_of_memory(gstfastganseg::Error::from(cuda).into(), 3).to_string();
        assert!(message.contains("2.00 GiB") && !message.contains("at ..."), "{message}");
    }

    #[test]
    fn other_errors_are_unchanged() {
        let error = Tensor::f_zeros([2], (Kind::Float, Device::Cpu)).unwrap().f_reshape([3]).unwrap_err();
        assert!(matches!(explain_out_of_memory(error.into(), 0), Error::Torch(_)));
    }
}
