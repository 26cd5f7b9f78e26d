"""What the text of pg_waldump says; no engine."""

from understudy.core.lineage import Branch
from understudy.drivers.postgres import lsn, wal

DUMP = """\
rmgr: Heap        len (rec/tot):     59/    59, tx:        725, lsn: 0/017595B0, prev 0/01759570, desc: INSERT off 1
rmgr: Transaction len (rec/tot):     34/    34, tx:        725, lsn: 0/017595F0, prev 0/017595B0, desc: COMMIT 2026-11-23 08:17:25.318877 UTC
rmgr: Heap        len (rec/tot):     59/    59, tx:        726, lsn: 0/01759610, prev 0/017595B0, desc: INSERT off 2
rmgr: Heap        len (rec/tot):     59/    59, tx:        727, lsn: 0/01759650, prev 0/017595B0, desc: INSERT off 3
rmgr: Transaction len (rec/tot):     50/    50, tx:        726, lsn: 0/01759698, prev 0/01759658, desc: COMMIT 2026-11-23 08:17:25.347334 UTC; subxacts: 727 728; inval msgs: catcache 80
rmgr: Transaction len (rec/tot):    242/   242, tx:        729, lsn: 0/01759710, prev 0/017596D0, desc: PREPARE gid a: b
c: 2026-11-23 08:17:25.347572 UTC
rmgr: Transaction len (rec/tot):    242/   242, tx:        730, lsn: 0/01759848, prev 0/01759808, desc: PREPARE gid g2: 2026-11-23 08:17:25.347743 UTC; subxacts: 740
rmgr: Heap        len (rec/tot):     59/    59, tx:        740, lsn: 0/01759850, prev 0/017595B0, desc: INSERT off 3
rmgr: Transaction len (rec/tot):     42/    42, tx:          0, lsn: 0/01759940, prev 0/01759848, desc: COMMIT_PREPARED 730: 2026-11-23 08:17:25.347853 UTC
rmgr: Transaction len (rec/tot):     42/    42, tx:          0, lsn: 0/01759980, prev 0/01759848, desc: COMMIT_PREPARED 600: 2026-11-23 08:17:26.000000 UTC
rmgr: Transaction len (rec/tot):     42/    42, tx:          0, lsn: 0/017599A0, prev 0/01759848, desc: ABORT_PREPARED 601: 2026-11-23 08:17:27.000000 UTC
rmgr: Transaction len (rec/tot):     34/    34, tx:        731, lsn: 0/017599B0, prev 0/01759970, desc: ABORT 2026-11-23 08:17:25.348052 UTC
rmgr: Heap        len (rec/tot):     59/    59, tx:        750, lsn: 0/01759A10, prev 0/017595B0, desc: INSERT off 3
rmgr: Standby     len (rec/tot):     50/    50, tx:          0, lsn: 0/01759A98, prev 0/01759A10, desc: RUNNING_XACTS
"""  # noqa: E501  lines are as long as they are


def test_transactions() -> None:
    """Every transaction whose end stands there is named once, with what is its own; what was undone anyway is not."""
    content = wal.understand(DUMP.splitlines(keepends=True))
    got = [(one.xid, one.fate, one.records, one.gid, one.lsn) for one in content.transactions]
    assert got == [
        (725, "committed", 2, "", "0/17595F0"),
        (726, "committed", 3, "", "0/1759698"),
        (729, "prepared", 1, "a: b\nc", "0/1759710"),
        (730, "committed", 3, "g2", "0/1759940"),
        (600, "committed prepared", 1, "", "0/1759980"),
        (601, "rolled back prepared", 1, "", "0/17599A0"),
    ]
    assert content.transactions[0].at == "2026-11-23T08:17:25.318877Z"
    assert (content.unfinished, content.records, lsn.text(content.last)) == (1, 14, "0/1759A98")


def test_our_own_probes_are_nobodys_transactions() -> None:
    """A write probe of ours commits too; who lists what was lost must not list it, nor hide a user's own message."""
    message = "rmgr: LogicalMessage len (rec/tot): 70/70, tx: 8, lsn: 0/01759500, prev 0/01759500, desc: MESSAGE "
    message += 'transactional, prefix "understudy"; payload (5 bytes): 70 72 6F 62 65\n'
    commit = "rmgr: Transaction len (rec/tot): 46/46, tx: 8, lsn: 0/01759600, prev 0/01759500, desc: "
    lines = [message, commit + "COMMIT 2026-11-23 08:17:25.318877 UTC\n"]
    assert wal.understand(lines).transactions == ()
    theirs = [line.replace("understudy", "outbox") for line in lines]
    assert [one.xid for one in wal.understand(theirs).transactions] == [8]


def test_nothing() -> None:
    """A log that ends at the fork holds nothing."""
    content = wal.understand([])
    assert (content.last, content.records, content.transactions) == (None, 0, ())


def test_histories_part() -> None:
    """Where two histories part, which of our stretches are then ours alone."""
    ours = wal.history(3, "1\t0/3000000\tno\n2\t0/5000000\tno\n")
    theirs = wal.history(2, "1\t0/4000000\twhy\n")
    assert ours == (Branch("1", 0), Branch("2", 0x3000000), Branch("3", 0x5000000))
    assert wal.parted(ours, theirs) == 0x3000000
    assert wal.parted(ours, ours) is None
    assert wal.parted(ours[:1], ours) == 0x3000000
    alone = wal.stretches(ours, 0x3000000)
    assert alone == (wal.Stretch(2, 0x3000000, 0x5000000), wal.Stretch(3, 0x5000000))
