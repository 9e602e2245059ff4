// SPDX-License-Identifier: MPL-2.0

use super::*;
use crate::image::OwnedPicture;

#[test]
fn the_network_has_106_401_parameters() {
    let tensors = read_tensors(BUILT_IN, Path::new(ORIGIN)).unwrap();
    assert_eq!(tensors.values().map(Tensor::numel).sum::<usize>(), 106_401);
}

#[test]
fn a_missing_tensor_is_named() {
    let mut tensors = read_tensors(BUILT_IN, Path::new(ORIGIN)).unwrap();
    assert!(tensors.remove("encoder.blocks.3.attention.expand.bias").is_some());
    let store = Store::new(&tensors, Path::new(ORIGIN), (Device::Cpu, Kind::Float));
    let error = Block::new(&store.at("encoder").at("blocks").at(3), BLOCKS[3]).unwrap_err();
    assert!(error.to_string().contains("encoder.blocks.3.attention.expand.bias"), "{error}");
}

#[test]
fn bad_pictures_are_refused() {
    let network = PersonNetwork::load(Device::Cpu, Kind::Float).unwrap();
    for picture in [
        Picture { data: &[0; 10], width: 2, height: 2, stride: 6 },
        Picture { data: &[], width: 0, height: 2, stride: 0 },
        Picture { data: &[0; 10], width: 1 << 40, height: 1 << 40, stride: 6 },
    ] {
        assert!(matches!(network.segment(&picture), Err(Error::Config(_))), "{picture:?}");
        assert!(matches!(network.find_person(&picture), Err(Error::Config(_))), "{picture:?}");
    }
}

#[test]
fn pictures_of_any_size_give_masks_of_theirs() {
    let network = PersonNetwork::load(Device::Cpu, Kind::Float).unwrap();
    for (width, height) in [(1, 1), (1, 300), (300, 1), (37, 51), (640, 360)] {
        let picture = OwnedPicture::from_rgb(width, height, vec![128; 3 * width * height]).unwrap();
        let mask = network.segment(&picture.as_picture()).unwrap();
        assert_eq!(mask.probability.size(), [HEIGHT, WIDTH]);
        assert_eq!(mask.alpha().unwrap().len(), width * height);
        assert!(mask.largest_person().unwrap().is_none(), "a grey picture shows nobody");
        assert!(network.find_person(&picture.as_picture()).unwrap().is_none());
    }
}
