package driver_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
)

func TestAGradeIsAWordInJSON(t *testing.T) {
	text, err := json.Marshal([]driver.Grade{driver.Fine, driver.Warning, driver.Failure})
	require.NoError(t, err)
	require.JSONEq(t, `["ok","warn","fail"]`, string(text))
	var read []driver.Grade
	require.NoError(t, json.Unmarshal(text, &read))
	require.Equal(t, []driver.Grade{driver.Fine, driver.Warning, driver.Failure}, read)
	require.Less(t, driver.Fine, driver.Warning)
	require.Less(t, driver.Warning, driver.Failure)
	_, err = json.Marshal(driver.Grade(9))
	require.ErrorContains(t, err, "no such grade")
	require.ErrorContains(t, json.Unmarshal([]byte(`["good"]`), &read), "want ok, warn or fail")
}
