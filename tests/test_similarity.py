"""Near-duplicates against all pairs compared by hand; topics that are told apart."""

import itertools

import datasets
import numpy as np
import pytest

from axolotl_donod.pruning import similarity
from axolotl_donod.pruning.similarity import duplicate_groups, jaccard, topic_clusters


def row_of(ids, prompt=None):
    cut = len(ids) // 2 if prompt is None else prompt
    labels = [-100] * cut + list(ids)[cut:]
    return {"input_ids": [int(i) for i in ids], "labels": [int(i) for i in labels]}


def grams_by_hand(ids):
    """The set of runs of five tokens; a shorter row is one run."""
    if len(ids) < 5:
        return {tuple(ids)}
    return {tuple(ids[i : i + 5]) for i in range(len(ids) - 4)}


def groups_by_hand(rows, threshold):
    """Compare every pair and follow the chains."""
    sets = [grams_by_hand(row["input_ids"]) for row in rows]
    group = list(range(len(rows)))
    for i, j in itertools.combinations(range(len(rows)), 2):
        similarity = len(sets[i] & sets[j]) / len(sets[i] | sets[j])
        if similarity >= threshold:
            group = [group[i] if one == group[j] else one for one in group]
    names = {}
    for one in group:
        if group.count(one) > 1:
            names.setdefault(one, len(names))
    return [names.get(one, -1) for one in group]


def related_rows(seed, count=80):
    """Copies, edited copies and strangers of very different lengths."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        kind = generator.integers(4) if rows else 0
        if kind == 0:
            ids = generator.integers(0, 3000, generator.integers(0, 120)).tolist()
        else:
            ids = list(rows[generator.integers(len(rows))]["input_ids"])
        for _ in range(kind - 1 if ids else 0):
            ids[generator.integers(len(ids))] = int(generator.integers(3000))
        rows.append(row_of(ids))
    return rows


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_groups_are_those_of_comparing_every_pair(seed, threshold):
    rows = related_rows(seed)
    expected = groups_by_hand(rows, threshold)
    assert max(expected) > 1
    found = duplicate_groups(rows, threshold, progress=False)
    assert found.dtype == np.int64
    assert found.tolist() == expected
    dataset = datasets.Dataset.from_list(rows)
    assert duplicate_groups(dataset, threshold, progress=False).tolist() == expected


def test_the_threshold_itself_counts_as_similar():
    # 14 tokens have 10 runs of five; one other last token leaves 9 of 11 in common.
    rows = [row_of(range(14)), row_of([*range(13), 99])]
    assert jaccard(*rows) == 9 / 11
    assert duplicate_groups(rows, 9 / 11, progress=False).tolist() == [0, 0]
    above = np.nextafter(9 / 11, 1)
    assert duplicate_groups(rows, above, progress=False).tolist() == [-1, -1]


def test_a_chain_of_near_duplicates_is_one_group():
    base = list(range(100))
    rows = [row_of(base[10 * k :] + list(range(200, 200 + 10 * k))) for k in range(4)]
    assert jaccard(rows[0], rows[1]) > 0.7 > jaccard(rows[0], rows[2])
    assert duplicate_groups(rows, 0.7, progress=False).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.8, 1.0])
def test_equal_rows_always_share_a_group(threshold):
    generator = np.random.default_rng(1)
    ids = [generator.integers(0, 9000, size) for size in [0, 1, 4, 5, 6, 50, 700]]
    rows = [row_of(one) for one in [*ids, *ids]]
    # Another answer to mask does not make it another text.
    rows[13] = row_of(ids[6], prompt=3)
    found = duplicate_groups(rows, threshold, progress=False).tolist()
    assert found == [*range(7), *range(7)]


def test_short_rows_are_similar_only_when_they_are_equal():
    rows = [row_of(ids) for ids in ([1, 2], [1, 2, 3], [2, 1], [1, 2], [1, 2, 3, 4, 5])]
    found = duplicate_groups(rows, 0.01, progress=False)
    assert found.tolist() == [0, -1, -1, 0, -1]


def test_the_seed_moves_no_clear_case_and_repeats_to_the_same_groups():
    rows = related_rows(9)
    found = {
        tuple(duplicate_groups(rows, 0.8, seed, progress=False))
        for seed in (0, 0, 1, 7)
    }
    assert found == {tuple(groups_by_hand(rows, 0.8))}


def test_a_pile_of_copies_and_a_shared_template_take_no_long_time():
    generator = np.random.default_rng(0)
    template = generator.integers(0, 9000, 300).tolist()
    copies = [row_of(template)] * 1000
    # Similarity 0.75: every pair is compared and none is a near-duplicate.
    strangers = [
        row_of([*template, *generator.integers(0, 9000, 50).tolist()])
        for _ in range(300)
    ]
    found = duplicate_groups([*copies, *strangers], 0.9, progress=False)
    assert found.tolist() == [0] * 1000 + [-1] * 300


def test_no_rows_have_no_group_and_no_topic():
    assert duplicate_groups([], 0.8, progress=False).tolist() == []
    assert topic_clusters([]).tolist() == []


def topics(seed, sizes):
    """Rows whose prompts use one of several vocabularies; answers are alike."""
    generator = np.random.default_rng(seed)
    rows, truth = [], []
    for topic, size in enumerate(sizes):
        for _ in range(size):
            prompt = 100 * (topic + 1) + generator.integers(0, 20, 30)
            rows.append(row_of([*prompt, *generator.integers(0, 50, 90)], prompt=30))
            truth.append(topic)
    return rows, np.array(truth)


def test_prompts_of_different_words_never_share_a_cluster():
    rows, truth = topics(0, [30, 30, 20])
    clusters = topic_clusters(rows)
    assert clusters.shape == truth.shape
    assert clusters.dtype == np.int64
    assert np.unique(clusters).size <= round((80 / 2) ** 0.5)
    for cluster in np.unique(clusters):
        assert np.unique(truth[clusters == cluster]).size == 1


def test_clusters_repeat_and_do_not_depend_on_what_holds_the_rows():
    rows, _ = topics(1, [25, 25])
    first = topic_clusters(rows).tolist()
    assert topic_clusters(rows).tolist() == first
    assert topic_clusters(datasets.Dataset.from_list(rows)).tolist() == first


def test_a_row_without_prompt_counts_by_its_answer_and_an_empty_one_has_no_topic():
    rows, truth = topics(2, [20, 20])
    bare = [
        {"input_ids": row["input_ids"][:30], "labels": row["input_ids"][:30]}
        for row in rows
    ]
    clusters = topic_clusters([*bare, row_of([])])
    assert clusters[-1] == -1
    for cluster in range(clusters.max() + 1):
        assert np.unique(truth[clusters[:-1] == cluster]).size == 1


@pytest.mark.parametrize("count", [1, 2, 3, 5, 40])
def test_few_or_equal_prompts_are_one_topic(count, recwarn):
    assert topic_clusters([row_of([1, 2, 3, 4])] * count).tolist() == [0] * count
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


def test_the_number_of_topics_follows_that_of_the_rows_up_to_a_limit(monkeypatch):
    generator = np.random.default_rng(0)
    rows = [row_of(generator.integers(0, 999, 6)) for _ in range(200)]
    assert np.unique(topic_clusters(rows)).size == round((200 / 2) ** 0.5)
    monkeypatch.setattr(similarity, "MAX_CLUSTERS", 4)
    assert np.unique(topic_clusters(rows)).size == 4
