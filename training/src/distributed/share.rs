// SPDX-License-Identifier: MPL-2.0

//! Distribution of items over ranks.

/// Returns the indices of the items of `rank`, in order: the most expensive item first, each to the rank with the
/// least work so far. All items belong to exactly one rank.
pub fn share(costs: &[usize], rank: usize, ranks: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..costs.len()).collect();
    order.sort_by_key(|&item| std::cmp::Reverse(costs[item]));
    let mut load = vec![0; ranks];
    let mut own = Vec::new();
    for item in order {
        let least = (0..ranks).min_by_key(|&rank| load[rank]).unwrap_or(0);
        load[least] += costs[item].max(1);
        if least == rank {
            own.push(item);
        }
    }
    own.sort_unstable();
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_belongs_to_one_rank_and_loads_are_similar() {
        let costs: Vec<usize> = (0..30).map(|i| 40 + i * 37 % 61).collect();
        for ranks in 1..=8 {
            let shares: Vec<Vec<usize>> = (0..ranks).map(|rank| share(&costs, rank, ranks)).collect();
            let mut all: Vec<usize> = shares.concat();
            all.sort_unstable();
            assert_eq!(all, (0..30).collect::<Vec<_>>());
            let loads = shares.iter().map(|own| own.iter().map(|&item| costs[item]).sum::<usize>());
            let (least, most) = (loads.clone().min().unwrap(), loads.max().unwrap());
            assert!(most - least <= 100, "{ranks}: {least} to {most}");
            assert!(shares.iter().all(|own| own.is_sorted()));
        }
        assert_eq!(share(&[5], 1, 3), [0; 0], "more ranks than items");
    }
}
