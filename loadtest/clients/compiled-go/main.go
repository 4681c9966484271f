// Uploads files with Go's own HTTP client and its writer of forms, and reads them again.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
)

var asked struct {
	Endpoint, Token, Session string
	Names                    []string
}

func send(method, path, kind string, body io.Reader) []byte {
	query := url.Values{"api-version": {"2024-02-02-preview"}, "identifier": {asked.Session}}
	request, err := http.NewRequest(method, asked.Endpoint+"/"+path+"?"+query.Encode(), body)
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+asked.Token)
	if kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		log.Fatal(path, " ", answer.Status, " ", string(text), " ", err)
	}
	return text
}

func upload(name string) string {
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	file, err := form.CreateFormFile("file", name)
	if err != nil {
		log.Fatal(err)
	}
	io.WriteString(file, name)
	form.Close()
	var stored struct {
		Value []struct {
			Properties struct{ Filename string }
		}
	}
	text := send("POST", "files/upload", form.FormDataContentType(), &body)
	if err := json.Unmarshal(text, &stored); err != nil || len(stored.Value) != 1 {
		log.Fatal(string(text), " ", err)
	}
	return stored.Value[0].Properties.Filename
}

func main() {
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		log.Fatal(err)
	}
	for _, name := range asked.Names {
		stored := upload(name)
		contents := send("GET", "files/content/"+url.PathEscape(name), "", nil)
		line, _ := json.Marshal([]string{stored, string(contents)})
		fmt.Println(string(line))
	}
}
