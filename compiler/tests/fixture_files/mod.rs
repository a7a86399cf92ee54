//! The small checkpoints of `codegen-tests/fixtures`, changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../codegen-tests/fixtures")
        .join(name)
}

#[derive(Clone)]
pub struct Tensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

pub type Tensors = BTreeMap<String, Tensor>;

pub fn tensors(name: &str) -> Tensors {
    let file = std::fs::read(fixture(name).join("model.safetensors")).unwrap();
    let found = SafeTensors::deserialize(&file).unwrap();
    let tensor = |name: String, view: TensorView| {
        let (shape, bytes) = (view.shape().to_vec(), view.data().to_vec());
        let dtype = view.dtype();
        (name, Tensor { dtype, shape, bytes })
    };
    found
        .tensors()
        .into_iter()
        .map(|(name, view)| tensor(name, view))
        .collect()
}

/// Writes a safetensors file.
pub fn write(tensors: &Tensors, path: &Path) {
    let views = tensors.iter().map(|(name, tensor)| {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).unwrap();
        (name, view)
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}
