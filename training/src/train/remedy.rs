//! Faults of libtorch that have a remedy.

use crate::Error;

/// How libtorch's allocators say that there is too little memory, on CUDA and on the CPU.
const WORDS: [&str; 3] = ["out of memory", "can't allocate memory", "not enough memory"];

/// The same error, or what to lower where memory ran out at `step`.
pub fn with_remedy(error: Error, step: u64) -> Error {
    let text = match &error {
        Error::Torch(inner) | Error::Core(gstfastganseg::Error::Torch(inner)) => inner.to_string(),
        _ => return error,
    };
    match text.lines().find(|line| WORDS.iter().any(|words| line.contains(words))) {
        Some(line) => Error::OutOfMemory { step, reason: line.trim().to_owned() },
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, TchError, Tensor};

    use super::*;

    #[test]
    fn memory_that_is_not_there_names_what_to_lower() {
        let error = Tensor::f_empty([1 << 50], (Kind::Float, Device::Cpu)).unwrap_err();
        let message = with_remedy(error.into(), 7).to_string();
        for words in ["step 7", "allocate", "data.batch", "data.size", "critics.shape.max_channels"] {
            assert!(message.contains(words), "{message}");
        }
        let cuda = TchError::Torch("CUDA out of memory. Tried to allocate 2.00 GiB.\nat ...".into());
        let message = with_remedy(gstfastganseg::Error::Torch(cuda).into(), 3).to_string();
        assert!(message.contains("2.00 GiB") && !message.contains("at ..."), "{message}");
    }

    #[test]
    fn other_faults_stay_as_they_are() {
        let error = Tensor::f_zeros([2], (Kind::Float, Device::Cpu)).unwrap().f_reshape([3]).unwrap_err();
        assert!(matches!(with_remedy(error.into(), 0), Error::Torch(_)));
    }
}
