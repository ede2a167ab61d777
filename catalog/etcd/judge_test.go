package etcd

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/fencepost/fencepost/catalog/driver"
)

func TestAProbeJudgesMembersAlarmsSizeAndHistory(t *testing.T) {
	t.Parallel()
	const nospace, corrupt = etcdserverpb.AlarmType_NOSPACE, etcdserverpb.AlarmType_CORRUPT
	for _, row := range []struct {
		f     driver.Finding
		grade driver.Grade
		says  string
	}{
		{judgeMembers(1), driver.Warning, "the loss of one member"},
		{judgeMembers(2), driver.Warning, "2 voting"},
		{judgeMembers(3), driver.Fine, "1 may fail"},
		{judgeMembers(5), driver.Fine, "2 may fail"},
		{judgeAlarms(nil), driver.Fine, "none"},
		{judgeAlarms([]etcdserverpb.AlarmType{nospace}), driver.Failure, "NOSPACE"},
		{judgeAlarms([]etcdserverpb.AlarmType{corrupt, nospace}), driver.Failure, "CORRUPT"},
		{judgeSize(100<<20, 0), driver.Fine, "does not tell its quota"},
		{judgeSize(100<<20, 2<<30), driver.Fine, "5% of its quota of 2048 MiB"},
		{judgeHistory(1_000_000, true), driver.Fine, "has been compacted"},
		{judgeHistory(1000, false), driver.Fine, "all its 1000 revisions"},
		{judgeHistory(1_000_000, false), driver.Warning, "still takes space"},
		{judgeSize(9<<20, 10<<20), driver.Warning, "90%"},
	} {
		require.Equal(t, row.grade, row.f.Grade, row.f.Detail)
		require.Contains(t, row.f.Detail, row.says)
		require.Equal(t, row.grade != driver.Fine, row.f.Remedy != "")
	}
}
