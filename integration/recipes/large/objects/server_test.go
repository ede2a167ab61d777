// Package objects_test tries how data in an object store are guarded, against
// versitygw, a gateway that keeps objects in files: a real server that real services
// use, and decides conditional writes under a lock.
package objects_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"
)

const bucket = "orders"

// programVar names the server's program, which is built once, and not by each test.
const programVar = "FENCEPOST_TEST_VERSITYGW"

func TestMain(m *testing.M) {
	cmd := exec.Command("go", "tool", "-n", "versitygw")
	cmd.Stderr = os.Stderr
	path, err := cmd.Output()
	if err == nil {
		err = os.Setenv(programVar, strings.TrimSpace(string(path)))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "versitygw can't be built:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// A server is an object store with an empty bucket.
type server struct {
	*s3.Client
	http *http.Client
}

// startServer starts a server with an empty bucket, which is stopped with the test.
func startServer(t *testing.T) *server {
	t.Helper()
	dir, err := os.MkdirTemp("", "objects-")
	require.NoError(t, err)
	data, socket := filepath.Join(dir, "data"), filepath.Join(dir, "socket")
	for _, folder := range []string{data, filepath.Join(dir, "about")} {
		require.NoError(t, os.Mkdir(folder, 0o700))
	}
	cmd := exec.Command(os.Getenv(programVar), "--port", socket, "--access", "test", "--secret", "secret", "--quiet",
		"posix", "--sidecar", filepath.Join(dir, "about"), data)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	require.NoError(t, cmd.Start())
	base := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(func() {
		base.CloseIdleConnections()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		require.NoError(t, os.RemoveAll(dir))
	})
	c := &server{http: &http.Client{Transport: base}}
	c.Client = s3.New(s3.Options{
		BaseEndpoint: aws.String("http://objects"), Region: "us-east-1", UsePathStyle: true, HTTPClient: c.http,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "test", SecretAccessKey: "secret"}, nil
		}),
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired, RetryMaxAttempts: 1,
	})
	require.Eventually(t, func() bool {
		_, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String(bucket)})
		return err == nil
	}, 30*time.Second, 20*time.Millisecond)
	return c
}

// errRefused means that the condition of a write did not hold.
var errRefused = errors.New("the object is not what the condition says")

// put writes an object on a condition: that it has an entity tag, or that there is
// none if the tag is empty; always if condition is false. The body is sent as it
// comes, so the request is signed before.
func (s *server) put(ctx context.Context, key string, body io.Reader, size int, condition bool, tag string) (newTag string, err error) {
	in := &s3.PutObjectInput{Bucket: aws.String(bucket), Key: aws.String(key)}
	switch {
	case condition && tag == "":
		in.IfNoneMatch = aws.String("*")
	case condition:
		in.IfMatch = aws.String(tag)
	}
	signed, err := s3.NewPresignClient(s.Client).PresignPutObject(ctx, in)
	if err != nil {
		return "", err
	}
	r, err := http.NewRequestWithContext(ctx, signed.Method, signed.URL, body)
	if err != nil {
		return "", err
	}
	r.Header, r.ContentLength = signed.SignedHeader.Clone(), int64(size)
	resp, err := s.http.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	switch resp.StatusCode {
	case http.StatusOK:
		return resp.Header.Get("Etag"), err
	case http.StatusPreconditionFailed, http.StatusConflict, http.StatusNotFound:
		return "", fmt.Errorf("%w: %s", errRefused, resp.Status)
	default:
		return "", fmt.Errorf("%s: %s", resp.Status, text)
	}
}

func (s *server) get(ctx context.Context, key string) (body, tag string, err error) {
	out, err := s.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String(bucket), Key: aws.String(key)})
	if err != nil {
		return "", "", err
	}
	defer out.Body.Close()
	text, err := io.ReadAll(out.Body)
	return string(text), aws.ToString(out.ETag), err
}
