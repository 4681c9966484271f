// Uploads files with .NET's own HTTP client and its forms, and reads them again.
using System;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using System.Threading.Tasks;

static class Client
{
    static async Task Main()
    {
        Console.OutputEncoding = new UTF8Encoding(false);
        var input = new System.IO.StreamReader(Console.OpenStandardInput(), Encoding.UTF8);
        var asked = JsonDocument.Parse(await input.ReadToEndAsync()).RootElement;
        string Of(string name) => asked.GetProperty(name).GetString();
        var query = $"?api-version=2024-02-02-preview&identifier={Of("session")}";
        using var client = new HttpClient();
        client.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", Of("token"));
        foreach (var element in asked.GetProperty("names").EnumerateArray())
        {
            var name = element.GetString();
            using var form = new MultipartFormDataContent();
            form.Add(new ByteArrayContent(Encoding.UTF8.GetBytes(name)), "file", name);
            using var sent = await client.PostAsync($"{Of("endpoint")}/files/upload{query}", form);
            var told = await sent.EnsureSuccessStatusCode().Content.ReadAsStringAsync();
            var stored = JsonDocument.Parse(told).RootElement.GetProperty("value")[0];
            var path = $"{Of("endpoint")}/files/content/{Uri.EscapeDataString(name)}{query}";
            using var read = await client.GetAsync(path);
            var contents = await read.EnsureSuccessStatusCode().Content.ReadAsByteArrayAsync();
            Console.WriteLine(JsonSerializer.Serialize(new[]
            {
                stored.GetProperty("properties").GetProperty("filename").GetString(),
                Encoding.UTF8.GetString(contents),
            }));
        }
    }
}
