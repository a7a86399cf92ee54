use std::cmp::Reverse;
use std::collections::HashMap;

/// All pairs of pieces that make a piece: best score first, then the longer left part, the longer
/// right part, and the order of the pieces. Pieces that are not `normal` take no part.
pub(in crate::checkpoint) fn merges_by_score<'a>(
    pieces: &[&'a str],
    scores: &[f32],
    normal: impl Fn(usize) -> bool,
) -> Vec<[&'a str; 2]> {
    // Only looked up, never walked: its order does not matter.
    let ids: HashMap<&str, usize> = (0..).zip(pieces).map(|(id, &piece)| (piece, id)).collect();
    let find = |part: &str| ids.get(part).copied().filter(|&id| normal(id));
    let mut merges = Vec::new();
    for (id, &piece) in pieces.iter().enumerate().filter(|(id, _)| normal(*id)) {
        for (cut, _) in piece.char_indices().skip(1) {
            let (left, right) = piece.split_at(cut);
            if let (Some(left_id), Some(right_id)) = (find(left), find(right)) {
                let lengths = (left.chars().count(), right.chars().count());
                merges.push((scores[id], Reverse(lengths), id, (left_id, right_id), [left, right]));
            }
        }
    }
    merges.sort_unstable_by(|a, b| {
        let by_score = b.0.total_cmp(&a.0);
        by_score.then_with(|| (a.1, a.2, a.3).cmp(&(b.1, b.2, b.3)))
    });
    merges.into_iter().map(|merge| merge.4).collect()
}
