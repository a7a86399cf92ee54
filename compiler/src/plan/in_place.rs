//! Residuals added where they lie.
//!
//! A call that adds a value which nothing needs afterwards may write its output over it: one buffer less, one
//! binding less. The kernel of a norm with a residual has no other way (`out += norm(x)`), so where the value is still
//! needed it is copied to the output first.

use super::calls::{Call, Extent, Operand, SectionPlan, ValueId};
use crate::kernels::{
    CombineSpec, DenseDownSpec, Epilogue, ExpertDownSpec, GemmSpec, KernelSpec, MatvecSpec, PointwiseExpr,
    PointwiseSpec, Residual, Strided,
};

/// Decides each residual of a section. `input_dies`: nothing needs the section's input after it.
pub fn share_residuals(plan: &mut SectionPlan, input_dies: bool) {
    let mut index = 0;
    while index < plan.calls.len() {
        if let Some(residual) = plan.calls[index].residual.take() {
            decide(plan, &mut index, residual, input_dies);
        }
        index += 1;
    }
}

fn decide(plan: &mut SectionPlan, index: &mut usize, residual: ValueId, input_dies: bool) {
    let call = &plan.calls[*index];
    let Some(out) = call.operands.iter().find_map(|operand| match operand {
        Operand::Write(value) => Some(*value),
        _ => None,
    }) else {
        return;
    };
    // A split product writes its output in several calls; only the last could take it over.
    let written_once = plan.calls.iter().filter(|call| call.writes(out)).count() == 1;
    let reads_here = call
        .operands
        .iter()
        .filter(|operand| **operand == Operand::Read(residual))
        .count();
    let only_as_residual = reads_here == usize::from(adds_in_epilogue(call));
    let read_later = plan.calls[*index + 1..]
        .iter()
        .any(|later| later.reads(residual) || later.residual == Some(residual));
    let outlives = plan.output == Some(residual) || (plan.input == Some(residual) && !input_dies);
    let same_extent = plan.values[out.0] == plan.values[residual.0];
    let may_share = written_once && only_as_residual && !read_later && !outlives && same_extent;
    match &mut plan.calls[*index].spec {
        KernelSpec::Norm(_) if may_share => {}
        KernelSpec::Norm(_) => {
            // Copy the residual to where the sum will be.
            let copy = copy(plan.values[residual.0], residual, out);
            plan.calls.insert(*index, copy);
            *index += 1;
            return;
        }
        KernelSpec::Matvec(MatvecSpec { epilogue, .. }) | KernelSpec::Gemm(GemmSpec { epilogue, .. })
            if may_share && epilogue.last() == Some(&Epilogue::Add) =>
        {
            epilogue.pop();
            epilogue.push(Epilogue::AddInPlace);
        }
        KernelSpec::ExpertDown(ExpertDownSpec { residual, .. })
        | KernelSpec::DenseDown(DenseDownSpec { residual, .. })
        | KernelSpec::Combine(CombineSpec { residual, .. })
            if may_share && *residual == Residual::Add =>
        {
            *residual = Residual::InPlace;
        }
        _ => return,
    }
    let call = &mut plan.calls[*index];
    call.operands.retain(|operand| *operand != Operand::Read(residual));
    for call in &mut plan.calls[*index..] {
        call.rename(out, residual);
    }
    if plan.output == Some(out) {
        plan.output = Some(residual);
    }
}

fn adds_in_epilogue(call: &Call) -> bool {
    let steps = match &call.spec {
        KernelSpec::Matvec(spec) => &spec.epilogue,
        KernelSpec::Gemm(spec) => &spec.epilogue,
        KernelSpec::ExpertDown(ExpertDownSpec { residual, .. })
        | KernelSpec::DenseDown(DenseDownSpec { residual, .. })
        | KernelSpec::Combine(CombineSpec { residual, .. }) => return *residual == Residual::Add,
        _ => return false,
    };
    steps.contains(&Epilogue::Add)
}

fn copy(extent: Extent, from: ValueId, to: ValueId) -> Call {
    let (width, single_row) = match extent {
        Extent::PerToken(width) => (width, false),
        Extent::Fixed(width) => (width, true),
    };
    let spec = PointwiseSpec {
        width,
        inputs: vec![Strided {
            stride: width,
            offset: 0,
        }],
        expression: PointwiseExpr::Input(0),
        in_place: false,
    };
    Call {
        spec: KernelSpec::Pointwise(spec),
        operands: vec![Operand::Read(from), Operand::Write(to)],
        label: "copy".to_string(),
        single_row,
        residual: None,
    }
}
