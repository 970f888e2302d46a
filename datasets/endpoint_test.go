package datasets

import (
	"strings"
	"testing"
)

// Keys of the shapes that services give out; none is one.
var pastedKeys = []string{
	"sk-ant-api03-abcdefghijklmnop", "sk-proj-AbCdEf1234567890", "hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345", "gsk_abcdefghijklmnop1234",
	"xai-abcdefghij0123456789", "AIzaSyA1234567890abcdefghijklmno", "AKIAIOSFODNN7EXAMPLE", "nvapi-abcdefghijkl1234", "eyJhbGciOiJIUzI1NiIsInR5cCI6",
	"0123456789abcdef0123456789abcdef", "Zm9vYmFyMTIzNDU2Nzg5MGFiY2Rl+w/x=", "A1B2C3D4E5F6A7B8C9D0E1F2A3B4", "aB3dE6gH9jK2mN5pQ8sT1vW4",
}

func TestAPastedKeyIsRefusedWithoutRepeatingIt(t *testing.T) {
	for _, key := range pastedKeys {
		for field, p := range map[string]EndpointParams{"key_env": {Model: "m", KeyEnv: key}, "key_file": {Model: "m", KeyFile: key}} {
			err := p.Defaults().Validate()
			if err == nil {
				t.Errorf("%s: %s was accepted", field, key)
			} else if strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), field) {
				t.Errorf("%s: %v", field, err)
			}
		}
	}
}

func TestNamesOfVariablesAndFilesAreAccepted(t *testing.T) {
	for _, name := range []string{"OPENAI_API_KEY", "KEY2", "_X", "LONGALIGN_TEACHER_KEY_NUMBER_2_OF_2024"} {
		if err := (EndpointParams{Model: "m", KeyEnv: name}).Defaults().Validate(); err != nil {
			t.Errorf("key_env %s: %v", name, err)
		}
	}
	for _, path := range []string{
		"key", "key.txt", "/run/secrets/openai-api-key", "secrets/key1", "~/.config/openai/key", "my-teacher-key-file-for-2024-runs",
		"/home/Me/Projects2024/teacher/key", "./sk-ant-api03-abcdefghijklmnop", `C:\Users\me\key.txt`, "/tmp/TestKeysAreReferences2345/001/key",
	} {
		if err := (EndpointParams{Model: "m", KeyFile: path}).Defaults().Validate(); err != nil {
			t.Errorf("key_file %s: %v", path, err)
		}
	}
}
