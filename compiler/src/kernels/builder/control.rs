use naga::{Barrier, BinaryOperator, Block, Expression, Statement};

use super::Builder;
use super::value::{Bool, IntoValue, U32};

impl Builder {
    /// Runs `body` where `condition` holds.
    pub fn if_(&self, condition: Bool<'_>, body: impl FnOnce()) {
        self.if_else(condition, body, || {});
    }

    /// Runs `accept` where `condition` holds, `reject` elsewhere.
    pub fn if_else(&self, condition: Bool<'_>, accept: impl FnOnce(), reject: impl FnOnce()) {
        let accept = self.block(accept);
        let reject = self.block(reject);
        self.statement(Statement::If {
            condition: condition.handle,
            accept,
            reject,
        });
    }

    /// Ends this thread's work.
    pub fn return_(&self) {
        self.statement(Statement::Return { value: None });
    }

    /// `for (name = start; name < end; name += step)`; `body` gets the counter.
    pub fn range<'b>(
        &'b self,
        name: &str,
        start: impl IntoValue<'b, u32>,
        end: impl IntoValue<'b, u32>,
        step: impl IntoValue<'b, u32>,
        body: impl FnOnce(U32<'b>),
    ) {
        let (start, end, step) = (start.value(self), end.value(self), step.value(self));
        let next = self.variable(&format!("next_{name}"), start);
        let mut counter = None;
        let block = self.block(|| {
            let current = next.load().named(name);
            counter = Some(current);
            self.break_if(current.binary(BinaryOperator::GreaterEqual, end));
            body(current);
        });
        let continuing = self.block(|| next.store(counter.expect("set above") + step));
        self.statement(Statement::Loop {
            body: block,
            continuing,
            break_if: None,
        });
    }

    /// Repeats `body` until it breaks, see [`Builder::break_if`].
    pub fn repeat(&self, body: impl FnOnce()) {
        let body = self.block(body);
        self.statement(Statement::Loop {
            body,
            continuing: Block::new(),
            break_if: None,
        });
    }

    /// Leaves the innermost loop where `condition` holds.
    pub fn break_if(&self, condition: Bool<'_>) {
        self.if_(condition, || self.statement(Statement::Break));
    }

    /// `workgroupBarrier()`. Uniform control flow only.
    pub fn barrier(&self) {
        self.statement(Statement::ControlBarrier(Barrier::WORK_GROUP));
    }

    /// The sum of `value` over the threads of this thread's subgroup. Uniform control flow only.
    pub fn subgroup_add<'b, T: super::Number>(&'b self, value: super::Value<'b, T>) -> super::Value<'b, T> {
        self.subgroup_reduce(naga::SubgroupOperation::Add, value)
    }

    /// The largest `value` in this thread's subgroup. Uniform control flow only.
    pub fn subgroup_max<'b, T: super::Number>(&'b self, value: super::Value<'b, T>) -> super::Value<'b, T> {
        self.subgroup_reduce(naga::SubgroupOperation::Max, value)
    }

    /// `value` of the thread whose lane number differs from this one's in the bits of `mask`.
    pub fn subgroup_shuffle_xor<'b, T: super::Number>(
        &'b self,
        value: super::Value<'b, T>,
        mask: impl IntoValue<'b, u32>,
    ) -> super::Value<'b, T> {
        let mode = naga::GatherMode::ShuffleXor(mask.value(self).handle);
        self.subgroup_result::<T>(|result| Statement::SubgroupGather {
            mode,
            argument: value.handle,
            result,
        })
    }

    fn subgroup_reduce<'b, T: super::Number>(
        &'b self,
        op: naga::SubgroupOperation,
        value: super::Value<'b, T>,
    ) -> super::Value<'b, T> {
        self.subgroup_result::<T>(|result| Statement::SubgroupCollectiveOperation {
            op,
            collective_op: naga::CollectiveOperation::Reduce,
            argument: value.handle,
            result,
        })
    }

    fn subgroup_result<T: super::Number>(
        &self,
        statement: impl FnOnce(naga::Handle<Expression>) -> Statement,
    ) -> super::Value<'_, T> {
        let mut state = self.state.borrow_mut();
        state.subgroups = true;
        let ty = state.intern::<T>();
        let result = state.append(Expression::SubgroupOperationResult { ty });
        state.push(statement(result));
        drop(state);
        self.value(result)
    }
}
