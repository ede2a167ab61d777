package supervisors

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	ecs "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/compose-spec/compose-go/v2/loader"
	compose "github.com/compose-spec/compose-go/v2/types"
	"github.com/hashicorp/hcl/v2/hclsimple"
	"github.com/stretchr/testify/require"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// killing is how long run waits after SIGKILL before it gives up.
const killing = 5 * time.Second

// requireEntrypoint requires that a container starts as fencepost run, which
// parks, and is given the time that this may take to stop.
func requireEntrypoint(t *testing.T, command []string, stop time.Duration) {
	t.Helper()
	require.Equal(t, []string{"fencepost", "run"}, command[:2])
	require.NotContains(t, strings.Join(command, " "), "--on-superseded", "whatever ends is restarted, so it parks")
	own := command[:slices.Index(command, "--")]
	grace, err := time.ParseDuration(strings.TrimPrefix(own[len(own)-1], "--stop-grace="))
	require.NoError(t, err, own)
	require.Greater(t, stop, grace+killing, "the supervisor would kill it before run does what it is to do")
}

// documents decodes each document of a YAML file as what its kind says, and
// fails on a field that Kubernetes does not know, or that is there twice.
func documents(t *testing.T, name string) []any {
	t.Helper()
	var all []any
	for _, text := range strings.Split(example(t, name), "\n---\n") {
		var kind struct{ Kind string }
		require.NoError(t, yaml.Unmarshal([]byte(text), &kind))
		into, known := map[string]any{
			"Deployment": &apps.Deployment{}, "StatefulSet": &apps.StatefulSet{}, "Service": &core.Service{}, "Pod": &core.Pod{},
		}[kind.Kind]
		require.True(t, known, kind.Kind)
		require.NoError(t, yaml.UnmarshalStrict([]byte(text), into), name)
		all = append(all, into)
	}
	return all
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }

func requireProbes(t *testing.T, c core.Container) {
	t.Helper()
	require.Equal(t, []string{"fencepost", "health", "live"}, c.LivenessProbe.Exec.Command[:3])
	requireReadiness(t, c)
	alone := seconds(int64(c.LivenessProbe.PeriodSeconds * c.LivenessProbe.FailureThreshold))
	require.Greater(t, alone, 30*time.Second+seconds(int64(c.LivenessProbe.PeriodSeconds)), "the entrypoint's longest delay is no death")
}

func requireReadiness(t *testing.T, c core.Container) {
	t.Helper()
	require.Equal(t, []string{"fencepost", "health", "standby"}, c.ReadinessProbe.Exec.Command[:3], "readiness is not leading")
}

func TestKubernetesKnowsEveryFieldAndTheEntrypointParksUnderControllers(t *testing.T) {
	t.Parallel()
	deployment := documents(t, "kubernetes/deployment.yaml")[0].(*apps.Deployment)
	set := documents(t, "kubernetes/statefulset.yaml")[0].(*apps.StatefulSet)
	for _, pod := range []core.PodTemplateSpec{deployment.Spec.Template, set.Spec.Template} {
		c := pod.Spec.Containers[0]
		requireEntrypoint(t, slices.Concat(c.Command, c.Args), seconds(*pod.Spec.TerminationGracePeriodSeconds))
		requireProbes(t, c)
		require.Empty(t, pod.Spec.RestartPolicy, "a controller allows Always only")
		require.Nil(t, c.RestartPolicy, "a pod that is over is replaced")
	}
	require.Equal(t, deployment.Spec.Selector.MatchLabels, deployment.Spec.Template.Labels)
	require.Equal(t, set.Spec.Selector.MatchLabels, set.Spec.Template.Labels)
	require.Equal(t, set.Spec.ServiceName, documents(t, "kubernetes/statefulset.yaml")[1].(*core.Service).Name)
	require.Error(t, yaml.UnmarshalStrict([]byte("kind: Pod\nspec: {restartPolicyRule: []}"), &core.Pod{}), "decoding is strict")
}

func TestTheRulesOfThePodDoWithEachCodeWhatTheTableSays(t *testing.T) {
	t.Parallel()
	pod := documents(t, "kubernetes/pod.yaml")[0].(*core.Pod)
	c := pod.Spec.Containers[0]
	requireReadiness(t, c)
	require.Nil(t, c.LivenessProbe, "the kubelet's SIGTERM ends it with 0, after which the rules keep it down")
	require.Nil(t, c.StartupProbe, "as for liveness")
	require.NotNil(t, c.RestartPolicy, "rules need one")
	for _, r := range roles() {
		require.Equal(t, !down(t, r.Meaning, "Kubernetes"), restarts(t, c, int32(r.Code)), "code %d", r.Code)
	}
}

// restarts follows the rules as Kubernetes' documentation says: the first that
// matches, and else the container's policy.
func restarts(t *testing.T, c core.Container, code int32) bool {
	t.Helper()
	for _, rule := range c.RestartPolicyRules {
		require.Equal(t, core.ContainerRestartRuleActionRestart, rule.Action)
		in := slices.Contains(rule.ExitCodes.Values, code)
		if in == (rule.ExitCodes.Operator == core.ContainerRestartRuleOnExitCodesOpIn) {
			return true
		}
	}
	return *c.RestartPolicy == core.ContainerRestartPolicyAlways || *c.RestartPolicy == core.ContainerRestartPolicyOnFailure && code != 0
}

func TestComposeKnowsEveryField(t *testing.T) {
	t.Parallel()
	project, err := loader.LoadWithContext(t.Context(), compose.ConfigDetails{
		WorkingDir:  t.TempDir(),
		ConfigFiles: []compose.ConfigFile{{Filename: "compose.yaml", Content: []byte(example(t, "compose.yaml"))}},
		Environment: compose.Mapping{"FENCEPOST_STORE": "postgres://db/kv"},
	}, func(o *loader.Options) { o.SetProjectName("kv", true); o.Profiles = []string{"*"} })
	require.NoError(t, err)
	for _, name := range []string{"kv-7", "kv-8"} {
		s := project.Services[name]
		requireEntrypoint(t, s.Command, time.Duration(*s.StopGracePeriod))
		require.Equal(t, "unless-stopped", s.Restart)
		require.Equal(t, compose.HealthCheckTest{"CMD", "fencepost", "health", "standby", "--timeout=4s"}, s.HealthCheck.Test)
		require.Equal(t, strings.TrimPrefix(name, "kv-"), *s.Environment["FENCEPOST_GENERATION"])
	}
	require.Equal(t, "on-failure", project.Services["kv-9"].Restart)
	for _, r := range roles() {
		require.Equal(t, r.Code == 0, down(t, r.Meaning, "Compose"), "on-failure restarts whatever is not 0: code %d", r.Code)
	}
}

// A task is what RegisterTaskDefinition takes, as far as the example uses it.
type task struct {
	Family, NetworkMode, CPU, Memory, ExecutionRoleArn string
	RequiresCompatibilities                            []ecs.Compatibility
	ContainerDefinitions                               []ecs.ContainerDefinition
}

func TestECSKnowsEveryField(t *testing.T) {
	t.Parallel()
	decoder := json.NewDecoder(bytes.NewReader([]byte(example(t, "ecs-task.json"))))
	decoder.DisallowUnknownFields()
	var got task
	require.NoError(t, decoder.Decode(&got))
	c := got.ContainerDefinitions[0]
	requireEntrypoint(t, c.Command, seconds(int64(*c.StopTimeout)))
	require.LessOrEqual(t, *c.StopTimeout, int32(120), "the longest that ECS allows")
	require.Equal(t, []string{"CMD", "fencepost", "health", "live", "--timeout=4s"}, c.HealthCheck.Command,
		"ECS replaces a task that is not healthy: a standby is, and what is parked is")
	require.Equal(t, []int32{0, 64, 126, 127}, c.RestartPolicy.IgnoredExitCodes)
	require.Contains(t, got.RequiresCompatibilities, ecs.CompatibilityFargate)
}

func TestNomadKnowsEveryField(t *testing.T) {
	t.Parallel()
	var file struct {
		Job struct {
			Name  string `hcl:"name,label"`
			Type  string `hcl:"type"`
			Group struct {
				Name    string `hcl:"name,label"`
				Count   int    `hcl:"count"`
				Network struct {
					Port struct {
						Label string `hcl:"label,label"`
						To    int    `hcl:"to"`
					} `hcl:"port,block"`
				} `hcl:"network,block"`
				Restart struct {
					Attempts int    `hcl:"attempts"`
					Interval string `hcl:"interval"`
					Delay    string `hcl:"delay"`
					Mode     string `hcl:"mode"`
				} `hcl:"restart,block"`
				Update struct {
					HealthCheck     string `hcl:"health_check"`
					MinHealthyTime  string `hcl:"min_healthy_time"`
					HealthyDeadline string `hcl:"healthy_deadline"`
				} `hcl:"update,block"`
				Service struct {
					Name     string `hcl:"name"`
					Port     string `hcl:"port"`
					Provider string `hcl:"provider"`
					Check    struct {
						Name     string   `hcl:"name"`
						Type     string   `hcl:"type"`
						Task     string   `hcl:"task"`
						Command  string   `hcl:"command"`
						Args     []string `hcl:"args"`
						Interval string   `hcl:"interval"`
						Timeout  string   `hcl:"timeout"`
					} `hcl:"check,block"`
				} `hcl:"service,block"`
				Task struct {
					Name   string `hcl:"name,label"`
					Driver string `hcl:"driver"`
					Config struct {
						Image   string   `hcl:"image"`
						Command string   `hcl:"command"`
						Args    []string `hcl:"args"`
						Ports   []string `hcl:"ports"`
					} `hcl:"config,block"`
					KillTimeout string `hcl:"kill_timeout"`
					Env         struct {
						Generation string `hcl:"FENCEPOST_GENERATION"`
						Admin      string `hcl:"FENCEPOST_ADMIN"`
					} `hcl:"env,block"`
					Template struct {
						Data        string `hcl:"data"`
						Destination string `hcl:"destination"`
						Env         bool   `hcl:"env"`
					} `hcl:"template,block"`
				} `hcl:"task,block"`
			} `hcl:"group,block"`
		} `hcl:"job,block"`
	}
	require.NoError(t, hclsimple.Decode("nomad.hcl", []byte(example(t, "nomad.hcl")), nil, &file))
	group := file.Job.Group
	stop, err := time.ParseDuration(group.Task.KillTimeout)
	require.NoError(t, err)
	requireEntrypoint(t, append([]string{group.Task.Config.Command}, group.Task.Config.Args...), stop)
	require.LessOrEqual(t, stop, 30*time.Second, "the longest that a client allows by default")
	require.Equal(t, "standby", group.Service.Check.Args[1])
	require.Equal(t, "fencepost health", group.Service.Check.Command+" "+group.Service.Check.Args[0])
	require.Equal(t, fmt.Sprint("kv-g", group.Task.Env.Generation), file.Job.Name)
}
