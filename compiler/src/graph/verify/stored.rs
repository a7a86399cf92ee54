//! Where weights lie in a checkpoint.

use super::{Check, require};
use crate::graph::{Stored, WeightDecl, WeightRole};

pub fn check_stored(weight: &WeightDecl) -> Check {
    match &weight.stored {
        Stored::OneOf(ways) => {
            let name = &weight.name;
            require(!ways.is_empty(), || format!("`{name}` is stored in none of no ways"))?;
            ways.iter().try_for_each(|way| check_way(weight, way))
        }
        way => check_way(weight, way),
    }
}

fn check_way(weight: &WeightDecl, way: &Stored) -> Check {
    let name = &weight.name;
    let (tensor, blocks, transposed) = match way {
        Stored::AsDeclared => return Ok(()),
        Stored::OneOf(_) => return Err(format!("`{name}` has a choice within a choice of how it is stored")),
        Stored::Within {
            tensor,
            rows,
            transposed,
        } => (tensor, rows, transposed),
    };
    require(tensor.contains("{}") == name.contains("{}"), || {
        format!("`{name}` lies in `{tensor}`: one of them lacks the layer's number")
    })?;
    let of_experts = weight.role == WeightRole::Bank;
    require(of_experts || !tensor.contains("{expert}"), || {
        format!("`{name}` is no bank, but `{tensor}` belongs to an expert")
    })?;
    let is_vector = weight.role == WeightRole::Vector;
    require(!(*transposed && is_vector), || {
        format!("`{name}` is a vector and cannot be transposed")
    })?;
    let row_dim = if is_vector { 1 } else { 2 };
    let declared = weight
        .shape
        .len()
        .checked_sub(row_dim)
        .map(|dim| weight.shape[dim].value());
    let Some(first) = blocks.first() else {
        return Ok(());
    };
    let mut of_group = 0_usize;
    for block in blocks {
        let last = (block.len.saturating_sub(1))
            .saturating_mul(block.step)
            .saturating_add(block.start);
        let inside = block.len > 0 && block.step > 0 && last < block.group && block.group == first.group;
        require(inside, || {
            format!("`{name}` cannot be the rows {block:?} of `{tensor}`")
        })?;
        of_group = of_group.saturating_add(block.len);
    }
    let whole = declared.is_some_and(|rows| rows.is_multiple_of(of_group));
    require(whole, || {
        format!("`{name}` takes {of_group} rows of each group of `{tensor}`, which does not give its shape")
    })
}
